"""`twistd fastchat`. Nothing is imported until it is called: a plugin must not install a reactor."""

from twisted.application.service import ServiceMaker

fastchat = ServiceMaker(  # type: ignore[no-untyped-call]
    "FastChat", "fastchat.tap", "A self-hosted, end-to-end encrypted chat network", "fastchat"
)
