"""nginx as a lab's image: a server that keeps connections, as real ones do.

Built from this machine's own nginx and the libraries it is linked with (Debian: nginx-light), imported by one
Engine and pushed to the lab's registry. What belongs here: the image. What does not: load, figures.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.e2e.cluster import Cluster

NGINX_1, NGINX_2 = "registry:5000/nginx:1", "registry:5000/nginx:2"

STOP_SIGNAL = "SIGQUIT"
"""Asks nginx to answer what it has accepted, then to close."""

_CONFIG = """daemon off;
user root;
worker_processes 1;
pid /nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests 1000000;
  keepalive_timeout 3600s;
  client_body_temp_path /body; fastcgi_temp_path /fastcgi; proxy_temp_path /proxy;
  scgi_temp_path /scgi; uwsgi_temp_path /uwsgi;
  server {{
    listen 80; listen [::]:80;
    location / {{ return 200 "version={version} host=$hostname client=$remote_addr\\n"; }}
  }}
}}
"""


def program() -> Path:
    """This machine's nginx. Raises SystemExit where there is none."""
    found = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise SystemExit("load is answered by nginx, which is missing here: apt-get install nginx-light")
    return Path(found)


def bring(cluster: Cluster) -> None:
    """Put NGINX_1 and NGINX_2 into the lab's registry and every Engine. Raises SystemExit without nginx."""
    server = program()
    first, *others = [*cluster.managers, *cluster.workers]
    for version, image in ((1, NGINX_1), (2, NGINX_2)):
        with tempfile.NamedTemporaryFile(suffix=".tar") as file:
            file.write(_content(server, version))
            file.flush()
            settings = ['CMD ["/nginx", "-c", "/nginx.conf"]', "EXPOSE 80"]
            flags = [word for setting in settings for word in ("-c", setting)]
            cluster.engine("import", *flags, file.name, image, node=first)
        cluster.engine("push", "-q", image, node=first)
        for node in (first, *others):
            cluster.engine("pull", "-q", image, node=node)


def _content(program: Path, version: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", dereference=True) as tar:
        tar.add(program, "nginx")
        for library in _libraries(program):
            tar.add(library, library.lstrip("/"))
        texts = {
            "nginx.conf": _CONFIG.format(version=version),
            "etc/passwd": "root:x:0:0:root:/:/bin/false\n",
            "etc/group": "root:x:0:\n",
            "var/log/nginx/error.log": "",
        }
        for name, text in texts.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


def _libraries(program: Path) -> list[str]:
    told = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return sorted({word for word in told.split() if word.startswith("/")})
