"""A FastChat network for `twistd -ny fastchat.tac`: see `twistd fastchat --help` for the environment it reads."""

import os

from twisted.application.service import Application

from fastchat.tap import make_service

application = Application("fastchat")
make_service(os.environ).setServiceParent(application)
