"""The Engine's network driver: a libnetwork remote driver on a unix socket. See docs/design/network-driver.md
for what the Engine must be sent so that a container comes up on its networks.

server: the socket and the calls. calls: the bodies of the calls and of the answers.
"""

from swarmpy.adapters.driver.server import SOCKET, NetworkDriver

__all__ = ["SOCKET", "NetworkDriver"]
