"""The rig: a hub with people, gates, the real nginx and Caddy, an application that tells what it is sent, and HTTP by hand.

The servers run exactly the fenced blocks of client/README.md; only addresses and folders are put in their place.
"""

import atexit
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "client" / "README.md"
START_SECONDS = 60
ARTICLE = b"the words of article "
PRICES = """
mode = "forward-auth"
[[route]]
match = "/articles/{*rest}"
price = "0.05"
title = "An article"
[[route]]
match = "/articles/dear/{*rest}"
price = "0.50"
[[route]]
match = "/app/{*rest}"
price = "0.01"
[[route]]
match = "/app/open/{*rest}"
free = true
"""
PROXY_PRICES = """
upstream = "http://127.0.0.1:{app}"
[[route]]
match = "/app/{{*rest}}"
price = "0.01"
# As long as a demand can be.
title = "{title}"
"""


def binary(name):
    """A program of the project: from WEIR_BIN_DIR, or the newest that was built."""
    if folder := os.environ.get("WEIR_BIN_DIR"):
        return str(Path(folder).resolve() / name)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [path for path in (target / "debug" / name, target / "release" / name) if path.exists()]
    if not built:
        raise SystemExit(f"no `{name}`: build the workspace, or set WEIR_BIN_DIR")
    return str(max(built, key=lambda path: path.stat().st_mtime))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def block(heading, language, number=0):
    """A fenced block below a heading of the guide, as it stands there."""
    text = README.read_text()
    part = text.split(f"\n{heading}\n", 1)[1]
    part = re.split(r"\n#{2,3} ", part, maxsplit=1)[0]
    return re.findall(rf"```{language}\n(.*?)```", part, re.S)[number]


def put(text, places):
    """Puts addresses and folders in their place; each must be there."""
    for old, new in places.items():
        assert old in text, f"`{old}` is not in the block"
        text = text.replace(old, str(new))
    return text


class Answer:
    """An answer, every header as often as it came."""

    def __init__(self, raw):
        head, _, self.body = raw.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        parts = lines[0].split(" ", 2)
        self.status = int(parts[1]) if len(parts) > 1 else 0
        self.headers = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:] if ":" in line]
        if self.one("transfer-encoding") == "chunked":
            whole, rest = b"", self.body
            while rest:
                size, _, rest = rest.partition(b"\r\n")
                length = int(size or b"0", 16)
                whole, rest = whole + rest[:length], rest[length + 2 :]
            self.body = whole

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name):
        found = self.all(name)
        assert len(found) < 2, f"`{name}` came {len(found)} times: {found}"
        return found[0] if found else None


def ask(port, target, method="GET", headers=(), body=b"", host="news.example"):
    """A request whose line is sent as it is. An answer that never comes has the status 0."""
    fields = [("Host", host), *(headers.items() if isinstance(headers, dict) else headers), ("Connection", "close")]
    if body:
        fields.append(("Content-Length", str(len(body))))
    text = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        raw = b""
        try:
            connection.sendall(text.encode("latin-1") + body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # The answer may be there before all was sent.
        try:
            while piece := connection.recv(65536):
                raw += piece
        except ConnectionResetError:
            pass
    return Answer(raw) if raw else Answer(b"HTTP/1.1 0 none\r\n\r\n")


class Echo(http.server.BaseHTTPRequestHandler):
    """The application: answers with what it was sent, lies about payments, and lets everybody cache it."""

    protocol_version = "HTTP/1.1"
    seen = []

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        told = {"method": self.command, "path": self.path, "headers": list(self.headers.items()), "body": len(body)}
        Echo.seen.append(told)
        text = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Cache-Control", "public, max-age=3600")
        self.send_header("Payment-Receipt", "faked")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, *_):
        pass


class Rig:
    """Everything that runs. Stops what it started, and removes its folder."""

    def __init__(self):
        self.folder = None
        self.running = {}
        self.ports = {}
        self.metrics = {}
        self.files = []
        self.is_ready = False

    def ready(self):
        """Starts everything, once."""
        if self.is_ready:
            return
        self.weir, self.hub_program = binary("weir"), binary("weir-hub")
        self.folder = Path(tempfile.mkdtemp(prefix="weir-servers-"))
        atexit.register(self.close)
        self.make_site()
        self.start_app()
        self.start_hub()
        self.start_gate("asked", PRICES)
        self.start_gate("proxy", PROXY_PRICES.format(app=self.ports["app"], title="€" * 200))
        self.start_nginx()
        self.start_caddy()
        self.is_ready = True

    def path(self, *parts):
        return self.folder.joinpath(*parts)

    def start(self, name, command, **options):
        log = open(self.path(f"{name}.log"), "ab")
        self.files.append(log)
        options.setdefault("stdout", log)
        process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder, **options)
        self.running[name] = process
        return process

    def stop(self, name, kill=False):
        process = self.running.pop(name, None)
        if process is None:
            return
        process.kill() if kill else process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()

    def close(self):
        for name in reversed(list(self.running)):
            self.stop(name)
        for file in self.files:
            file.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def wait_for_port(self, name, port):
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self.running[name].poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"`{name}` did not start:\n{self.path(f'{name}.log').read_text()[-4000:]}")

    def first_line(self, name):
        line = self.running[name].stdout.readline()
        if not line:
            raise SystemExit(f"`{name}` did not start:\n{self.path(f'{name}.log').read_text()[-4000:]}")
        return json.loads(line)

    # ---- what runs --------------------------------------------------------------------------------------------------

    def start_hub(self):
        command = [self.hub_program, "dev", "--no-web", "--data", str(self.path("dev")), "--json"]
        self.start("hub", command, stdout=subprocess.PIPE)
        self.hub = self.first_line("hub")
        self.payee = self.hub["payees"][0]["account"]
        self.payers = [payer["home"] for payer in self.hub["payers"]]
        # Nobody reads the rest of what it prints.
        threading.Thread(target=self.running["hub"].stdout.read, daemon=True).start()

    def start_gate(self, name, more, state=None):
        """A gate on a port that stays its own when it is started again."""
        port = self.ports.setdefault(name, free_port())
        config = self.path(f"{name}.toml")
        state = state or name
        config.write_text(
            f'listen = "127.0.0.1:{port}"\nrealm = "news.example"\npayee = "{self.payee}"\nhub = "{self.hub["hub"]}"\n'
            f'metrics = "127.0.0.1:0"\nstate = "{state}-state"\nsecret_file = "{state}-secret"\ntrust_forwarded = ["127.0.0.1"]\n{more}'
        )
        self.start(name, [self.weir, "gate", "--config", str(config), "--json"], stdout=subprocess.PIPE)
        self.metrics[name] = int(self.first_line(name)["metrics"].rsplit(":", 1)[1])
        return port

    def drawn(self, name):
        """What a gate has charged since it was started, in nanos."""
        text = ask(self.metrics[name], "/metrics").body.decode()
        return int(re.search(r"^weir_gate_drawn_nanos_total (\d+)", text, re.M).group(1))

    def start_app(self):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.ports["app"] = server.server_address[1]

    def make_site(self):
        site = self.path("site")
        (site / "articles" / "two").mkdir(parents=True)
        (site / "articles" / "index.html").write_bytes(ARTICLE + b"the list")
        (site / "articles" / "one").write_bytes(ARTICLE + b"one")
        (site / "articles" / "one.html").write_bytes(ARTICLE + b"one")
        (site / "articles" / "two" / "index.html").write_bytes(ARTICLE + b"two")
        (site / "articles" / "dear").mkdir()
        (site / "articles" / "dear" / "gold").write_bytes(ARTICLE + b"gold")
        (site / "index.html").write_text("the front page")
        (site / "robots.txt").write_text("all may come")
        self.site = site

    def make_certificate(self):
        key, certificate = self.path("key.pem"), self.path("certificate.pem")
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"]
        command += ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]
        subprocess.run(command, check=True, capture_output=True)
        return key, certificate

    def start_nginx(self):
        key, certificate = self.make_certificate()
        for name in ("nginx", "nginx_tls", "nginx_proxy", "nginx_proxy_tls"):
            self.ports[name] = free_port()

        def listens(name):
            return (
                f"listen 127.0.0.1:{self.ports[name]};\n    listen 127.0.0.1:{self.ports[name + '_tls']} ssl http2;\n"
                f"    ssl_certificate {certificate};\n    ssl_certificate_key {key};"
            )

        asking = put(
            block("### nginx", "nginx", 0),
            {
                "listen 80;": listens("nginx"),
                "/var/www/news": self.site,
                "127.0.0.1:8402": f"127.0.0.1:{self.ports['asked']}",
                "127.0.0.1:3000": f"127.0.0.1:{self.ports['app']}",
            },
        )
        before = put(
            block("### nginx", "nginx", 1),
            {"listen 80;": listens("nginx_proxy"), "127.0.0.1:8402": f"127.0.0.1:{self.ports['proxy']}"},
        )
        folders = "".join(
            f"{kind}_temp_path {self.path('nginx-' + kind)};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;\n" if os.geteuid() == 0 else ""
        self.path("nginx.conf").write_text(
            f"{user}daemon off;\nworker_processes 1;\npid {self.path('nginx.pid')};\nerror_log {self.path('nginx.err')};\n"
            f"events {{}}\nhttp {{\naccess_log off;\n{folders}{asking}\n{before}\n}}\n"
        )
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        command = [nginx, "-p", str(self.folder), "-c", str(self.path("nginx.conf")), "-e", str(self.path("nginx.err"))]
        self.start("nginx", command)
        self.wait_for_port("nginx", self.ports["nginx"])

    def start_caddy(self):
        self.ports["caddy"] = free_port()
        config = put(
            block("### Caddy", "caddyfile"),
            {
                "http://news.example {": f"http://:{self.ports['caddy']} {{\n\tbind 127.0.0.1",
                "/var/www/news": self.site,
                "127.0.0.1:8402": f"127.0.0.1:{self.ports['asked']}",
                "127.0.0.1:3000": f"127.0.0.1:{self.ports['app']}",
            },
        )
        self.path("Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n}\n" + config)
        home = {**os.environ, "HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder)}
        command = [shutil.which("caddy") or "/usr/bin/caddy", "run", "--config", str(self.path("Caddyfile"))]
        self.start("caddy", command, env=home)
        self.wait_for_port("caddy", self.ports["caddy"])

    # ---- the payer --------------------------------------------------------------------------------------------------

    def run(self, *arguments, payer=0, ok=True):
        command = [self.weir, *map(str, arguments), "--home", self.payers[payer]]
        done = subprocess.run(command, capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
        if ok and done.returncode != 0:
            raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stderr.decode()}")
        return done

    def credential(self, port, target, payer=0, **options):
        """Pays the demand for an address by hand, and gives the credential to show."""
        demand = ask(port, target, **options)
        assert demand.status == 402, f"{target}: {demand.status}"
        challenge = demand.one("www-authenticate")
        paid = self.run("pay", "--challenge", challenge, "--yes", "--max-price", "5", "--json", payer=payer)
        return json.loads(paid.stdout)


RIG = Rig()
