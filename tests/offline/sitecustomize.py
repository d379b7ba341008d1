"""Cuts a Python process off from the network, but for this machine; each attempt is written down.

Python runs a module of this name at every start if its folder is on PYTHONPATH: so the processes
that tests start are cut off as well. Whatever uses Python's sockets is seen, since the interpreter
itself tells of them; what C++ does (gloo between processes) is not.
"""

import ipaddress
import os
import platform
import sys

EVENTS = {
    **dict.fromkeys(("socket.connect", "socket.sendto", "socket.sendmsg"), 1),
    **dict.fromkeys(("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"), 0),
}


def is_of_this_machine(address: object) -> bool:
    """Returns whether an address, or the name of a host, leads nowhere else."""
    host = address[0] if isinstance(address, tuple) and address else address
    if isinstance(address, (str, bytes)) and os.fsdecode(address).startswith(("/", "\0")):
        return True  # a socket in the file system
    if not isinstance(host, (str, bytes)):
        return True  # none, or the kernel
    name, own = os.fsdecode(host), platform.node()
    if name in ("", "localhost", own) or name.startswith(f"{own}."):
        return True
    try:
        parsed = ipaddress.ip_address(name)
    except ValueError:
        return False
    return parsed.is_loopback or parsed.is_unspecified


def refuse(event: str, arguments: tuple[object, ...]) -> None:
    """Ends what would leave this machine with an OSError, as without a network."""
    if event not in EVENTS:
        return
    address = arguments[EVENTS[event]]
    if is_of_this_machine(address):
        return
    if "FLDET_ATTEMPTS" in os.environ:
        with open(os.environ["FLDET_ATTEMPTS"], "a") as file:
            file.write(f"{event} {address!r} by {sys.argv}\n")
    raise OSError(101, f"tests have no network: {event} {address!r}")


if not hasattr(sys, "is_cut_off"):
    sys.is_cut_off = True
    sys.addaudithook(refuse)
