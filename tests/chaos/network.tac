"""The network under chaos: the ordinary one, with a `tests.chaos.control.Control` on its standard input.

FASTCHAT_CHAOS_MUTANT names a mutant (`tests.chaos.mutants`) that this network shall be.
"""

import os

if mutant := os.environ.get("FASTCHAT_CHAOS_MUTANT", ""):
    from tests.chaos.mutants import MUTANTS, apply

    if MUTANTS[mutant].side == "server":
        apply(mutant)

from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.stdio import StandardIO

from fastchat.tap import make_service
from tests.chaos.control import Control

application = Application("fastchat")
network = make_service(os.environ)
network.setServiceParent(application)
reactor.callWhenRunning(lambda: StandardIO(Control(network, reactor)))
