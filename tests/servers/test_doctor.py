"""`weir gate doctor`: content with gates that are right, behind nginx and Caddy too, and plain about each thing that is wrong."""

import base64
import http.server
import json
import subprocess
import threading
import unittest

from rig import RIG, ask, free_port


def setUpModule():
    RIG.ready()


class Between(http.server.BaseHTTPRequestHandler):
    """A server between payer and gate that spoils one thing."""

    protocol_version = "HTTP/1.1"
    harm = None
    kept = {}
    to = None

    def answer(self):
        headers = [(name, value) for name, value in self.headers.items() if name.lower() not in ("connection", "host")]
        paid = any(name.lower() in ("authorization", "payment-signature") for name, _ in headers)
        if self.harm == "drops-credentials":
            headers = [(name, value) for name, value in headers if name.lower() not in ("authorization", "payment-signature")]
        if self.harm == "forgets-payments" and paid and "paid" in self.kept:
            headers = [(name, value) for name, value in headers if name.lower() not in ("authorization", "payment-signature")]
        if self.harm == "caches" and not paid and self.kept:
            answer = self.kept["demand"]
        else:
            answer = ask(self.to, self.path, self.command, headers, host=self.headers["host"])
        if self.harm == "caches" and answer.status == 402:
            self.kept["demand"] = answer
        if paid and answer.status == 200:
            self.kept["paid"] = answer
        status, lines = answer.status, [pair for pair in answer.headers if pair[0].lower() not in ("content-length", "date", "transfer-encoding")]
        lines = self.spoiled(lines, status, paid)
        if self.harm == "open" and paid:
            status = 200
        if self.harm == "nginx-500" and status == 402:
            status, lines = 500, []
        body = b"" if self.command == "HEAD" else answer.body
        self.send_response_only(status)
        for name, value in [*lines, ("Content-Length", str(len(body)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def spoiled(self, lines, status, paid):
        machine = ("www-authenticate", "payment-required", "crawler-price")
        cache = [pair for pair in lines if pair[0].lower() != "cache-control"]
        if self.harm == "no-machine-headers" and status == 402:
            return [pair for pair in lines if pair[0].lower() not in machine]
        if self.harm == "doubled" and status == 402:
            return lines + [pair for pair in lines if pair[0].lower() == "www-authenticate"]
        if self.harm == "age" and status == 402:
            return [*lines, ("Age", "30")]
        if self.harm == "public-demand" and status == 402:
            return [*cache, ("Cache-Control", "public, max-age=60")]
        if self.harm == "public-answer" and status == 200:
            return [*cache, ("Cache-Control", "public, max-age=60")]
        if self.harm == "no-receipt" and status == 200:
            return [pair for pair in lines if pair[0].lower() != "payment-receipt"]
        if self.harm == "charges-twice" and status == 200 and paid:
            return [(name, charged(value) if name.lower() == "payment-receipt" else value) for name, value in lines]
        if self.harm == "other-price" and status == 402:
            return [(name, "EUR 0.02" if name.lower() == "crawler-price" else value) for name, value in lines]
        if self.harm == "long" and status == 402:
            return [*lines, ("X-Long", "x" * 8192)]
        return lines

    do_GET = do_HEAD = do_OPTIONS = answer

    def log_message(self, *_):
        pass


def charged(text):
    told = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    told["drawn"] = told["amount"]
    return base64.urlsafe_b64encode(json.dumps(told).encode()).decode().rstrip("=")


class Doctor(unittest.TestCase):
    def doctor(self, port, path, *arguments, payer=2):
        done = RIG.run("gate", "doctor", "--url", f"http://127.0.0.1:{port}{path}", "--json", *arguments, payer=payer, ok=False)
        told = json.loads(done.stdout)
        self.assertEqual(sorted(told), ["ok", "steps"], done.stderr)
        self.assertEqual(done.returncode, 0 if told["ok"] else 1)
        for step in told["steps"]:
            self.assertEqual(sorted(step), ["detail", "name", "ok"])
        return told["ok"], {step["name"]: step for step in told["steps"]}

    def assert_well(self, port, path, *arguments):
        ok, steps = self.doctor(port, path, *arguments)
        self.assertTrue(ok, [step for step in steps.values() if not step["ok"]])
        return steps

    def test_gate_as_proxy_is_well(self):
        steps = self.assert_well(RIG.ports["proxy"], "/app/doctor")
        wanted = ["unpaid", "payment", "discovery", "x402", "crawler", "body", "expiry", "cache", "sizes", "page", "head"]
        wanted += ["served", "again", "again-x402", "forged-receipt", "forged-demand", "other-address"]
        self.assertEqual(list(steps), wanted)
        self.assertIn("0.01 EUR", steps["payment"]["detail"])

    def test_gate_asked_by_nginx_and_caddy_is_well(self):
        for server in ("nginx", "caddy", "nginx_proxy"):
            path = "/app/by-doctor" if server == "nginx_proxy" else "/articles/one?doctor"
            drawn = RIG.drawn("asked")
            steps = self.assert_well(RIG.ports[server], path)
            self.assertIn("drew 0.0", steps["served"]["detail"])
            self.assertIn("names the same", steps["discovery"]["detail"])
            if server != "nginx_proxy":
                self.assertEqual(RIG.drawn("asked") - drawn, 50_000_000, server)

    def test_dry_run_pays_nothing_and_needs_no_home(self):
        ok, steps = self.doctor(RIG.ports["proxy"], "/app/dry", "--dry-run")
        self.assertTrue(ok)
        self.assertNotIn("served", steps)

    def test_scripts_of_another_origin_are_looked_at(self):
        ok, steps = self.doctor(RIG.ports["proxy"], "/app/cors", "--dry-run", "--origin", "https://app.example")
        self.assertFalse(ok)
        self.assertIn("`cors`", steps["cors"]["detail"])
        port = RIG.start_gate("scripts", f'cors = ["https://app.example"]\nupstream = "http://127.0.0.1:{RIG.ports["app"]}"\ndefault = "0.01"\n')
        try:
            self.assert_well(port, "/x", "--dry-run", "--origin", "https://app.example")
        finally:
            RIG.stop("scripts")

    def test_budget_is_kept(self):
        ok, steps = self.doctor(RIG.ports["nginx"], "/articles/dear/gold", "--budget", "0.49")
        self.assertFalse(ok)
        self.assertIn("--budget", steps["pay"]["detail"])

    def test_home_with_nothing_to_pay_with_is_named_after_what_was_found(self):
        url = f"http://127.0.0.1:{RIG.ports['proxy']}/app/poor"
        poor = RIG.hub["payees"][1]["home"]
        command = [RIG.weir, "gate", "doctor", "--url", url, "--json", "--home", poor]
        done = subprocess.run(command, capture_output=True, timeout=60)
        steps = {step["name"]: step for step in json.loads(done.stdout)["steps"]}
        self.assertEqual(done.returncode, 1)
        self.assertTrue(steps["payment"]["ok"])
        self.assertIn("nothing to pay with", steps["pay"]["detail"])

    def test_free_missing_and_dead_addresses_are_named(self):
        for path, words in (("/robots.txt", "nothing is charged"), ("/none", "nothing is there")):
            ok, steps = self.doctor(RIG.ports["nginx"], path)
            self.assertFalse(ok)
            self.assertIn(words, steps["unpaid"]["detail"])
        ok, steps = self.doctor(free_port(), "/x", "--dry-run")
        self.assertFalse(ok)
        self.assertIn("no answer", steps["unpaid"]["detail"])

    def test_each_harm_is_named(self):
        harms = {
            "no-machine-headers": ("payment", "machine headers"), "doubled": ("payment", "more than once"),
            "age": ("cache", "`Age`"), "public-demand": ("cache", "no-store"), "caches": ("cache", "same demand"),
            "other-price": ("crawler", "another price"), "long": ("sizes", "above 8192"),
            "public-answer": ("served", "must be `private`"), "no-receipt": ("served", "no `Payment-Receipt`"),
            "charges-twice": ("again", "charged again"), "forgets-payments": ("again", "demanded again"),
            "drops-credentials": ("served", "demands again"), "open": ("forged-receipt", "reads for nothing"),
            "nginx-500": ("unpaid", "nginx makes a 500"),
        }
        for harm, (name, words) in harms.items():
            with self.subTest(harm):
                handler = type("Harm", (Between,), {"harm": harm, "kept": {}, "to": RIG.ports["proxy"]})
                server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
                threading.Thread(target=server.serve_forever, daemon=True).start()
                try:
                    ok, steps = self.doctor(server.server_address[1], f"/app/{harm}", payer=3)
                finally:
                    server.shutdown()
                    server.server_close()
                self.assertFalse(ok)
                self.assertIn(name, steps)
                self.assertFalse(steps[name]["ok"], steps)
                self.assertIn(words, steps[name]["detail"])
