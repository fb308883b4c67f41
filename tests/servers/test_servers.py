"""nginx and Caddy as the guide sets them up, in front of a site and an application, asking the gate about each request."""

import base64
import http.server
import json
import re
import signal
import subprocess
import threading
import unittest

from rig import ARTICLE, PRICES, RIG, Answer, Echo, ask

CENT, FIVE_CENTS = 10_000_000, 50_000_000
# Other ways to write the address of what costs ten times as much as the rest.
SPELLINGS = [
    "/articles/dear/gold", "//articles/dear/gold", "/articles//dear///gold", "/./articles/dear/gold",
    "/x/../articles/dear/gold", "/robots.txt/../articles/dear/gold", "/.well-known/../articles/dear/gold",
    "/.well-known/%2e%2e/articles/dear/gold", "/.well-known/.%2E/articles/dear/gold", "/articles/one/../dear/gold",
    "/articles%2fdear%2fgold", "/articles/dear%2Fgold", "/%61rticles/dear/gold", "/articles/de%61r/%67old",
    "/articles/dear/gold;x", "/articles/dear;x/gold", "/articles;/dear/gold", "/robots.txt;/../articles/dear/gold",
    "/articles/dear/gold%00", "/articles/dear/gold%00.txt", "/articles/dear/gold%20", "/articles/dear/gold/",
    "/articles/dear/gold/.", "/articles/dear/gold/..%2fgold", "/articles/dear/./gold", "/articles/dear/gold#x",
    "/robots.txt#/../articles/dear/gold", "/robots.txt?/../articles/dear/gold", "/articles/one?/../dear/gold",
    "/robots.txt%3f/../articles/dear/gold", "/robots.txt%23/../articles/dear/gold", "/articles\\dear\\gold",
    "/articles/dear%5cgold", "\\articles/dear/gold", "http://news.example/articles/dear/gold",
    "http://other.example/articles/dear/gold", "http://news.example//articles/dear/gold", "/%2561rticles/dear/gold",
    "/articles/%252e%252e/articles/dear/gold", "/.weir/../articles/dear/gold", "/.weir/check/../../articles/dear/gold",
    "/.weir/check/nginx/../../../articles/dear/gold", "/.weir/%2e%2e/articles/dear/gold", "/.weir//../articles/dear/gold",
    "/.weir/demand/..;/../articles/dear/gold", "/app/../articles/dear/gold", "/app/open/../../articles/dear/gold",
    "/app/open/%2e%2e/%2e%2e/articles/dear/gold", "/ARTICLES/dear/gold", "/articles/dear/gold?x=1", "/articles/dear/gold%",
    "/articles/dear/gold\xa0", "/articles/dear/gold%c0%ae", "/articles/dear/", "/openapi.json/../articles/dear/gold",
    "*", "/favicon.ico//../articles/dear/gold", "/articles/dear/gold%0d%0aX: y",
]
# What a client may say to be taken for another request.
CLAIMS = [
    {"X-Original-URI": "/robots.txt", "X-Original-Method": "GET"}, {"X-Original-URI": "/robots.txt"},
    {"X-Forwarded-Uri": "/robots.txt", "X-Forwarded-Method": "GET"}, {"X-Forwarded-Method": "OPTIONS"},
    {"X-Original-URL": "/robots.txt"}, {"X-Rewrite-URL": "/robots.txt"}, {"X-HTTP-Method-Override": "OPTIONS"},
    {"X-Original-Host": "free.example", "X-Forwarded-Host": "free.example"}, {"Payment-Context": "e30.AAAA"},
    {"Connection": "X-Original-URI, X-Forwarded-Uri, X-Original-Method, X-Forwarded-Method"},
    {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}, {"Cookie": "weir=AAAA"},
    {"X-Original-Id": "a"}, {"Range": "bytes=0-"}, {"Upgrade": "websocket", "Connection": "upgrade"},
    {"Content-Length": "0"}, {"Expect": "100-continue"}, {"X-Forwarded-For": "127.0.0.1"}, {"If-None-Match": "*"},
]


def setUpModule():
    RIG.ready()


def receipt(answer):
    text = answer.one("payment-receipt")
    return text and json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def padded(authorization, length):
    """The same credential in a header of this length."""
    scheme, token = authorization.split(" ")
    text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    made = text + b" " * ((length - len(scheme) - 1) * 3 // 4 - len(text))
    return scheme + " " + base64.urlsafe_b64encode(made).decode().rstrip("=")


class Demands:
    """What both servers must do. `server` names the port."""

    server = None
    # What is answered when the gate does not answer.
    closed = ()

    def ask(self, target, *more, **options):
        return ask(RIG.ports[self.server], target, *more, **options)

    def url(self, path):
        return f"http://127.0.0.1:{RIG.ports[self.server]}{path}"

    def fetch(self, path, *arguments, payer=0):
        """`weir fetch -i`: the answer, and what was said on stderr."""
        done = RIG.run("fetch", self.url(path), "-i", *arguments, payer=payer)
        return Answer(done.stdout), done.stderr.decode()

    def assert_demand(self, answer):
        self.assertEqual(answer.status, 402)
        self.assertTrue(answer.one("www-authenticate").startswith("Payment id="))
        self.assertTrue(answer.one("payment-required"))
        self.assertTrue(answer.one("crawler-price").startswith("EUR "))
        self.assertEqual(answer.one("cache-control"), "no-store")
        for name in ("payment-receipt", "payment-response"):
            self.assertEqual(answer.all(name), [])

    # ---- unpaid -----------------------------------------------------------------------------------------------------

    def test_unpaid_article_is_demanded_once_in_each_dialect(self):
        answer = self.ask("/articles/one")
        self.assert_demand(answer)
        self.assertEqual(answer.one("crawler-price"), "EUR 0.05")
        self.assertEqual(answer.one("content-type"), "application/problem+json")
        self.assertEqual(json.loads(answer.body)["price"], "0.05")

    def test_unpaid_article_shows_people_a_page(self):
        answer = self.ask("/articles/one", headers={"Accept": "text/html,*/*;q=0.8"})
        self.assert_demand(answer)
        self.assertEqual(answer.one("content-type"), "text/html; charset=utf-8")
        self.assertIn(b"weir pay --challenge", answer.body)
        self.assertTrue(answer.one("set-cookie").startswith("weir-claim="))
        self.assertIn("default-src 'none'", answer.one("content-security-policy"))

    def test_head_is_demanded_without_a_body(self):
        answer = self.ask("/articles/one", method="HEAD")
        self.assert_demand(answer)
        self.assertEqual(answer.body, b"")

    def test_free_pages_cost_nothing_and_say_nothing_of_payment(self):
        for target in ("/", "/robots.txt"):
            answer = self.ask(target)
            self.assertEqual(answer.status, 200, target)
            for name in ("payment-receipt", "www-authenticate", "crawler-charged", "cache-control"):
                self.assertEqual(answer.all(name), [], name)

    def test_missing_page_costs_nothing(self):
        self.assertEqual(self.ask("/articles/none").status, 404)

    def test_large_body_is_not_sent_to_the_check(self):
        answer = self.ask("/app/upload", method="POST", body=b"x" * 900_000)
        self.assert_demand(answer)
        self.assertEqual([seen for seen in Echo.seen if seen["path"] == "/app/upload"], [])

    # ---- paid -------------------------------------------------------------------------------------------------------

    def test_paid_article_comes_with_receipt_and_is_not_charged_again(self):
        path, before = f"/articles/one?{self.server}", RIG.drawn("asked")
        answer, said = self.fetch(path)
        self.assertEqual((answer.status, answer.body), (200, ARTICLE + b"one"))
        self.assertIn("0.05", said)
        self.assertEqual(answer.one("cache-control"), "private")
        self.assertEqual(receipt(answer)["drawn"], "50000000")
        self.assertEqual(RIG.drawn("asked") - before, FIVE_CENTS)
        again, said = self.fetch(path)
        self.assertEqual((again.status, again.body), (200, ARTICLE + b"one"))
        self.assertEqual(receipt(again)["drawn"], "0")
        self.assertEqual(RIG.drawn("asked") - before, FIVE_CENTS)
        head, _ = self.fetch(path, "-I")
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertEqual(RIG.drawn("asked") - before, FIVE_CENTS)

    def test_one_payment_shown_many_times_at_once_is_drawn_once(self):
        path = f"/articles/one?many={self.server}"
        shown = {"Authorization": RIG.credential(RIG.ports[self.server], path)["credential"]}
        before, answers = RIG.drawn("asked"), []
        threads = [threading.Thread(target=lambda: answers.append(self.ask(path, headers=shown).status)) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(answers, [200] * 32)
        self.assertEqual(RIG.drawn("asked") - before, FIVE_CENTS)

    def test_head_and_other_queries(self):
        paid = RIG.credential(RIG.ports[self.server], f"/articles/one?q={self.server}")
        shown = {"Authorization": paid["credential"]}
        self.assertEqual(self.ask(f"/articles/one?q={self.server}", "HEAD", shown).status, 200)
        self.assertEqual(self.ask(f"/articles/one?q={self.server}", "GET", shown).status, 200)
        self.assertEqual(self.ask(f"/articles/%6Fne?q={self.server}", "GET", shown).status, 200)
        for other in ("/articles/one", "/articles/one?q=other", f"/articles/two/?q={self.server}", "/articles/dear/gold"):
            self.assert_demand(self.ask(other, "GET", shown))

    def test_every_dialect_is_answered_in_its_own_words(self):
        paid = RIG.credential(RIG.ports[self.server], f"/articles/one?x402={self.server}")
        answer = self.ask(
            f"/articles/one?x402={self.server}", headers={"Payment-Signature": paid["x402"], "Crawler-Max-Price": "EUR 1"}
        )
        self.assertEqual(answer.status, 200)
        self.assertTrue(answer.one("payment-response"))
        self.assertEqual(answer.one("crawler-charged"), "EUR 0.05")
        short = self.ask(f"/articles/one?x402={self.server}", headers={"Payment-Signature": "x" * 40})
        self.assertEqual(short.status, 402)
        self.assertEqual(json.loads(short.body)["code"], "malformed-credential")

    def test_balance_is_drawn_once_for_a_request_that_is_asked_about_twice(self):
        # The index of a folder: one redirect, and one redirect within the server.
        before = RIG.drawn("asked")
        answer, _ = self.fetch("/articles/two", "-L", "--prepay", "20x", "--max-price", "2", payer=1)
        self.assertEqual((answer.status, answer.body), (200, ARTICLE + b"two"))
        self.assertEqual(RIG.drawn("asked") - before, FIVE_CENTS)
        # The rest pays for other articles.
        answer, _ = self.fetch("/articles/one.html", payer=1)
        self.assertEqual(receipt(answer)["left"], str(18 * FIVE_CENTS))
        self.assertEqual(RIG.drawn("asked") - before, 2 * FIVE_CENTS)

    def test_application_never_sees_payments(self):
        Echo.seen.clear()
        path = f"/app/echo/{self.server}"
        paid = RIG.credential(RIG.ports[self.server], path)
        answer = self.ask(
            path,
            headers=[
                ("Authorization", paid["credential"]), ("Cookie", "a=1; weir=xyz; b=2; weir-claim=uvw; weirs=3"),
                ("Payment-Context", "e30.AAAA"), ("X-Payment", "x"), ("Accept-Payment", "weir"), ("Crawler-Max-Price", "EUR 1"),
                ("Idempotency-Key", f"k-{self.server}"),
            ],
        )
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.one("cache-control"), "private")
        self.assertEqual(receipt(answer)["drawn"], str(CENT))
        seen = {name.lower(): value for name, value in Echo.seen[-1]["headers"]}
        for name in ("authorization", "payment-context", "x-payment", "accept-payment", "crawler-max-price"):
            self.assertNotIn(name, [key for key, value in seen.items() if value], name)
        cookies = {part.strip() for part in seen["cookie"].split(";") if part.strip()}
        self.assertEqual(cookies, {"a=1", "b=2", "weirs=3"})
        other = self.ask("/app/open/x", headers={"Authorization": "Bearer abc", "Cookie": "c=1"})
        seen = {name.lower(): value for name, value in Echo.seen[-1]["headers"]}
        self.assertEqual((other.status, seen["authorization"], seen["cookie"]), (200, "Bearer abc", "c=1"))
        self.assertEqual(other.one("cache-control"), "public, max-age=3600")
        self.assertEqual(other.all("payment-receipt"), [])

    def test_signature_of_x402_never_reaches_the_application(self):
        path = f"/app/x402/{self.server}"
        paid = RIG.credential(RIG.ports[self.server], path)
        answer = self.ask(path, headers={"Payment-Signature": paid["x402"], "Payment-Authorization": "Payment abc"})
        # The first one counts, and is none.
        self.assertEqual(answer.status, 402)
        answer = self.ask(path, headers={"Payment-Signature": paid["x402"]})
        self.assertEqual(answer.status, 200)
        names = [name.lower() for name, value in Echo.seen[-1]["headers"] if value]
        self.assertEqual([name for name in names if "payment" in name], [])

    def test_paid_body_reaches_the_application_whole(self):
        path, body = f"/app/paid-upload/{self.server}", b"y" * 900_000
        paid = RIG.credential(RIG.ports[self.server], path, method="POST", body=body)
        answer = self.ask(path, "POST", {"Authorization": paid["credential"]}, body=body)
        self.assertEqual(answer.status, 200)
        self.assertEqual(json.loads(answer.body)["body"], len(body))

    def test_credential_as_long_as_it_may_be_passes(self):
        path = f"/articles/one?long={self.server}"
        paid = RIG.credential(RIG.ports[self.server], path)
        longest = padded(paid["credential"], 4096)
        self.assertEqual(len(longest), 4096)
        self.assertEqual(self.ask(path, headers={"Authorization": longest}).status, 200)
        longer = self.ask(path, headers={"Authorization": padded(paid["credential"], 4100)})
        self.assertEqual(longer.status, 402)
        self.assertEqual(json.loads(longer.body)["code"], "malformed-credential")

    def test_page_is_claimed_and_its_cookie_opens_it(self):
        path = f"/articles/one?claim={self.server}"
        host = f"127.0.0.1:{RIG.ports[self.server]}"
        page = self.ask(path, headers={"Accept": "text/html"}, host=host)
        address = re.search(r"weir pay --challenge (?:&#39;|&#x27;|')(.*?)(?:&#39;|&#x27;|')", page.body.decode()).group(1)
        address = address.replace("&amp;", "&")
        self.assertTrue(address.startswith(self.url("/.weir/claim/")), address)
        poll = re.search(r"/\.weir/claim/[^\"']*?k=[\w-]+", page.body.decode()).group(0).replace("&amp;", "&")
        browser = page.one("set-cookie").split(";")[0]
        before = self.ask(poll, headers={"Cookie": browser}, host=host)
        self.assertEqual(json.loads(before.body), {"paid": False, "expired": False})
        RIG.run("pay", "--challenge", address, "--yes")
        after = self.ask(poll, headers={"Cookie": browser}, host=host)
        self.assertEqual(json.loads(after.body), {"paid": True, "expired": False})
        cookie = after.one("set-cookie")
        self.assertTrue(cookie.startswith("weir=") and cookie.endswith("HttpOnly; Secure; SameSite=Lax"), cookie)
        shown = {"Cookie": cookie.split(";")[0]}
        for _ in range(2):
            answer = self.ask(path, headers=shown, host=host)
            self.assertEqual((answer.status, answer.body), (200, ARTICLE + b"one"))
            self.assertEqual(answer.one("cache-control"), "private")
        self.assertEqual(self.ask("/articles/dear/gold", headers=shown, host=host).status, 402)
        self.assertEqual(self.ask(poll, headers={"Cookie": "weir-claim=" + "A" * 22}, host=host).status, 403)

    # ---- tricks -----------------------------------------------------------------------------------------------------

    def test_no_spelling_of_an_address_is_a_way_around_its_price(self):
        cheap = RIG.credential(RIG.ports[self.server], "/articles/one?cheap=" + self.server)["credential"]
        dear = ARTICLE + b"gold"
        for shown in ({}, {"Authorization": cheap}):
            for target in SPELLINGS:
                for method in ("GET", "POST"):
                    answer = self.ask(target, method, shown)
                    self.assertNotIn(dear, answer.body, f"{method} {target}: {answer.status}")
        for target in ("/articles/", "/articles/index.html", "/articles/one/", "/articles/two/", "/articles/two/index.html"):
            self.assertNotIn(ARTICLE, self.ask(target).body, target)

    def test_no_header_makes_one_request_pass_for_another(self):
        for claims in CLAIMS:
            for twice in (1, 2):
                answer = self.ask("/articles/dear/gold", headers=list(claims.items()) * twice)
                self.assertNotIn(answer.status, (200, 206, 304), claims)
                self.assertNotIn(ARTICLE, answer.body, claims)
        answer = self.ask("/app/secret", headers={"X-HTTP-Method-Override": "DELETE"})
        self.assertNotEqual(answer.status, 200)

    def test_programs_find_out_what_things_cost(self):
        told = json.loads(self.ask("/.well-known/weir").body)
        self.assertEqual(told["payee"], RIG.payee)
        self.assertIn("/articles/{rest}", json.loads(self.ask("/openapi.json").body)["paths"])

    def test_check_cannot_be_reached_for_another(self):
        # Whoever asks the gate himself learns what he would be told anyway.
        answer = self.ask("/.weir/check/nginx", headers={"X-Original-URI": "/robots.txt", "X-Original-Method": "GET"})
        self.assertIn(answer.status, (200, 404, 403))
        self.assertEqual(answer.body, answer.body if answer.status == 404 else b"")

    # ---- the gate fails ---------------------------------------------------------------------------------------------

    def test_z_gate_that_is_down_or_hangs_serves_nobody(self):
        path = f"/articles/one?down={self.server}"
        shown = {"Authorization": RIG.credential(RIG.ports[self.server], path)["credential"]}
        gate = RIG.running["asked"]
        # Hangs: the web server gives up within its own time.
        gate.send_signal(signal.SIGSTOP)
        try:
            answer = self.ask(path, headers=shown)
        finally:
            gate.send_signal(signal.SIGCONT)
        self.assertIn(answer.status, self.closed)
        self.assertNotIn(ARTICLE, answer.body)
        # Slow, but in time.
        gate.send_signal(signal.SIGSTOP)
        threading.Timer(1.0, gate.send_signal, [signal.SIGCONT]).start()
        self.assertEqual(self.ask(path, headers=shown).status, 200)
        RIG.stop("asked", kill=True)
        try:
            for target, headers in ((path, shown), ("/articles/dear/gold", {}), ("/robots.txt", {}), ("/app/open/x", {})):
                answer = self.ask(target, headers=headers)
                self.assertIn(answer.status, self.closed, target)
                self.assertNotIn(ARTICLE, answer.body)
        finally:
            RIG.start_gate("asked", PRICES)
        # Killed after a draw, it knows what was drawn.
        self.assertEqual(self.ask(path, headers=shown).status, 200)
        self.assertEqual(RIG.drawn("asked"), 0)


class Nginx(Demands, unittest.TestCase):
    server = "nginx"
    closed = (500, 502, 504)

    def curl(self, *arguments):
        command = ["curl", "-sSi", "--cacert", str(RIG.path("certificate.pem")), *arguments]
        return subprocess.run(command, capture_output=True, timeout=30, check=True).stdout

    def test_http2_and_tls_pass_demand_and_longest_credential(self):
        url = f"https://localhost:{RIG.ports['nginx_tls']}/articles/one?tls"
        demand = Answer(self.curl("--http2", url).replace(b"HTTP/2 402", b"HTTP/2 402 x", 1))
        self.assert_demand(demand)
        self.assertIn("https://localhost", json.loads(demand.body)["pay"])
        done = RIG.run("fetch", url, "-i", "--cacert", RIG.path("certificate.pem"))
        self.assertEqual(Answer(done.stdout).body, ARTICLE + b"one")
        paid = RIG.run("pay", "--challenge", demand.one("www-authenticate"), "--yes", "--json")
        longest = padded(json.loads(paid.stdout)["credential"], 4096)
        answer = self.curl("--http2", url, "-H", f"Authorization: {longest}")
        self.assertTrue(answer.startswith(b"HTTP/2 200"), answer[:200])

    def test_gate_as_proxy_behind_nginx_passes_the_longest_of_all(self):
        port, path = RIG.ports["nginx_proxy"], "/app/" + "x" * 400
        demand = ask(port, path)
        self.assert_demand(demand)
        paid = RIG.credential(port, path)
        for headers in (
            {"Authorization": padded(paid["credential"], 4096)},
            {"Payment-Signature": paid["x402"], "Cookie": "a=" + "b" * 4000},
        ):
            answer = ask(port, path, headers=headers)
            self.assertEqual(answer.status, 200)
            self.assertEqual(answer.one("cache-control"), "private")
            self.assertTrue(receipt(answer))
        names = [name.lower() for name, _ in Echo.seen[-1]["headers"]]
        self.assertEqual([name for name in names if "payment" in name or name == "authorization"], [])
        url = f"https://localhost:{RIG.ports['nginx_proxy_tls']}/app/tls"
        done = RIG.run("fetch", url, "--cacert", RIG.path("certificate.pem"))
        self.assertEqual(json.loads(done.stdout)["path"], "/app/tls")


class Caddy(Demands, unittest.TestCase):
    server = "caddy"
    closed = (502, 504)


class Recorder(http.server.BaseHTTPRequestHandler):
    """Passes requests on to a gate, and keeps the credential."""

    seen = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if shown := self.headers.get("authorization"):
            Recorder.seen.append(shown)
        headers = [(name, value) for name, value in self.headers.items() if name.lower() not in ("connection", "host", "content-length")]
        answer = ask(RIG.ports["nginx"], self.path, "POST", headers, body, host=self.headers["host"])
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *_):
        pass


class Checks(unittest.TestCase):
    """The gate itself, asked as nginx asks."""

    def drawn_by(self, shown, name):
        """What a check draws for a request that changes something."""
        before = RIG.drawn("asked")
        headers = {"X-Original-Method": "POST", "X-Original-URI": "/app/order", "Authorization": shown}
        headers.update({"X-Original-Id": name} if name else {})
        self.assertEqual(ask(RIG.ports["asked"], "/.weir/check/nginx", headers=headers).status, 200)
        return RIG.drawn("asked") - before

    def test_balance_is_drawn_once_for_each_request_that_the_web_server_names(self):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/app/order"
        RIG.run("fetch", url, "-d", "x", "--prepay", "20x", "--max-price", "1", payer=3)
        server.shutdown()
        server.server_close()
        shown = Recorder.seen[-1]
        self.assertEqual([self.drawn_by(shown, name) for name in ("a", "a", "b", "a", "b")], [CENT, 0, CENT, 0, 0])
        # Nothing says that these two are one.
        self.assertEqual([self.drawn_by(shown, None) for _ in range(2)], [CENT, CENT])


class Envoy(unittest.TestCase):
    """Envoy itself does not run here: this is the request that its filter makes."""

    def test_path_behind_the_prefix_is_judged(self):
        port = RIG.ports["asked"]
        self.assertEqual(ask(port, "/.weir/envoy/robots.txt").status, 200)
        answer = ask(port, "/.weir/envoy/articles/one", "POST")
        self.assertEqual((answer.status, answer.one("crawler-price")), (402, "EUR 0.05"))
        lie = {"X-Original-URI": "/robots.txt", "X-Original-Method": "GET", "X-Forwarded-Uri": "/robots.txt"}
        self.assertEqual(ask(port, "/.weir/envoy/articles/one", headers=lie).status, 402)
        self.assertEqual(ask(port, "/.weir/envoy/.weir/../articles/one").status, 400)
