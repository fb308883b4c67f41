"""The guide's quickstart, price table and check of `PAYMENT-CONTEXT`, as they are written."""

import http.server
import os
import subprocess
import threading
import unittest

from rig import RIG, ask, block, free_port, put

QUICKSTART = "### A static site behind nginx"


def setUpModule():
    RIG.ready()


class Quickstart(unittest.TestCase):
    def test_static_site_behind_nginx_runs_as_written(self):
        folder = RIG.path("quickstart")
        folder.mkdir()
        (folder / "dev").symlink_to(RIG.path("dev"))
        # nginx's worker is another user.
        for path in (RIG.folder, folder):
            path.chmod(0o755)
        gate, web = free_port(), free_port()
        ports = {"127.0.0.1:8402": f"127.0.0.1:{gate}"}
        (folder / "news.conf").write_text(
            put(
                block("### nginx", "nginx"),
                {**ports, "listen 80;": f"listen {web};", "/var/www/news": folder / "site"},
            )
        )
        steps = put(block(QUICKSTART, "sh", 0), ports)
        steps += "GATE=$!\ntrap 'kill $GATE; nginx -s stop -p . -c $PWD/nginx.conf -e $PWD/nginx.err' EXIT\n"
        # People take longer to type.
        steps += f"until curl -s http://127.0.0.1:{gate}/ >/dev/null; do :; done\n"
        steps += put(block(QUICKSTART, "sh", 1), {"127.0.0.1:8080": f"127.0.0.1:{web}"})
        path = f"{os.path.dirname(RIG.weir)}:{os.environ['PATH']}:/usr/sbin"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", steps], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, timeout=60
        )
        said, told = done.stdout.decode(), done.stderr.decode()
        self.assertEqual(done.returncode, 0, said + told)
        self.assertIn("402 Payment Required", said)
        self.assertEqual(said.count("The first article."), 2)
        self.assertIn("paid 0.05 EUR", told)
        self.assertIn("served for what was paid before", told)
        self.assertEqual(said.count('{"ok":true,"steps"'), 2)

    def test_price_table_of_the_guide_is_one(self):
        config = RIG.path("prices.toml")
        head = f'realm = "api.example"\npayee = "{RIG.payee}"\nhub = "{RIG.hub["hub"]}"\nupstream = "http://127.0.0.1:1"\n'
        config.write_text(head + block("### Prices", "toml"))
        done = RIG.run("gate", "check", "--config", config, "--json", ok=False)
        self.assertEqual(done.returncode, 0, done.stdout.decode())
        for request, units, price in (
            ("GET http://api.example/articles/1", [], "0.05"),
            ("GET http://api.example/files/a", ["--bytes", "1500"], "0.00115"),
            ("POST http://api.example/v1/chat/completions", ["--units", "input=1000,output=100"], "0.0035"),
            ("GET http://api.example/search", ["--units", "10"], "0.02"),
        ):
            done = RIG.run("gate", "check", "--config", config, "--json", "--request", request, *units)
            told = done.stdout.decode()
            self.assertTrue(f'"charge":"{price}"' in told or f'"fixed":"{price}"' in told, told)


class Seen(http.server.BaseHTTPRequestHandler):
    context = None

    def do_GET(self):
        Seen.context = self.headers.get("payment-context")
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


class Context(unittest.TestCase):
    def test_upstream_checks_who_paid_as_written(self):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Seen)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        more = f'upstream = "http://127.0.0.1:{server.server_address[1]}"\ndefault = "0.01"\n[context]\nsecret_file = "told"\n'
        port = RIG.start_gate("context", more)
        try:
            shown = RIG.credential(port, "/paid", payer=1)["credential"]
            lie = {"Authorization": shown, "Payment-Context": "e30.AAAA"}
            self.assertEqual(ask(port, "/paid", headers=lie).status, 200)
        finally:
            RIG.stop("context")
            server.shutdown()
            server.server_close()
        names = {}
        exec(block("### What the upstream is told", "python"), names)
        secret = RIG.path("told").read_bytes()
        told = names["paid"](Seen.context, secret)
        self.assertEqual((told["paid"], told["most"], told["currency"], told["again"]), ("0.01", "0.01", "EUR", False))
        self.assertIsNone(names["paid"](Seen.context, b"x" * 32))
        self.assertIsNone(names["paid"]("e30.AAAA", secret))
        self.assertIsNone(names["paid"]("nonsense", secret))
        self.assertIsNone(names["paid"](Seen.context, secret, told["time_ms"] / 1000 + 61))
