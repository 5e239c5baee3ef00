"""Orders amid the faults: people are forgotten, leads deleted at Meta -> seen through, and written down as such."""

import contextlib
import subprocess
import sys
import urllib.parse
import urllib.request

import psycopg

from tests.system.soak.hand import Hand, Struck
from tests.system.soak.plan import Fault
from tests.system.whole import APP_SECRET, VERIFY_TOKEN
from worker.graph.wire import appsecret_proof
from worker.settings import environment


class PeopleStrikes(Hand):
    """Forgets and deletes."""

    def _forget(self, fault: Fault) -> Struck:
        """People among those stored last, or that wait, or whose lead nobody has announced yet."""
        number = max(1, round(fault.amount))
        page_id = self._page()
        if fault.target == "unannounced":
            chosen = self.stack.post("leads", {"count": number, "page": page_id})["leads"]
        else:
            chosen = self._some(fault.target, number)
        if not chosen:
            return Struck(False)
        self.orders.tried.update(chosen)

        def order() -> bool:
            page = ("--page", page_id) if fault.target == "unannounced" else ()
            if not self._command("forget", *chosen, *page, "--json"):
                return False
            self.orders.done.update(chosen)
            if fault.target == "unannounced":
                self.stack.send(leads=chosen)
            return True

        self.errands.see_through(f"forgetting {len(chosen)}", order)
        return Struck(True)

    def _some(self, state: str, number: int) -> list[str]:
        query = "select leadgen_id from leadgen where state = %s order by first_seen_at desc limit 50"
        with contextlib.suppress(psycopg.Error), self._postgres() as connection:
            ids = [str(row[0]) for row in connection.execute(query, (state,)).fetchall()]
            return self._luck.sample(ids, min(number, len(ids)))
        return []

    def _command(self, *words: str) -> bool:
        settings = self.stack.settings
        env = {
            **environment(),
            **self.stack.env,
            "DATABASE_URL": settings.database_url,
            "REDIS_URL": settings.redis_url,
            "META_APP_SECRET": APP_SECRET,
            "META_VERIFY_TOKEN": VERIFY_TOKEN,
            "GRAPH_URL": self.stack.sandbox_url,
        }
        words = (sys.executable, "-m", "worker", *words)
        return subprocess.run(words, env=env, capture_output=True, check=False, timeout=60).returncode == 0

    def _delete(self, fault: Fault) -> Struck:
        """Leads are announced and taken away at Meta before or after they were read."""
        page_id = self._page()
        chosen = self.stack.post("leads", {"count": max(1, round(fault.amount)), "page": page_id})["leads"]
        self.orders.deleted.update(chosen)
        self.stack.send(leads=chosen)

        def take_away() -> bool:
            token = self.stack.get("tokens").get(page_id)
            if not token:
                return False
            for leadgen_id in chosen:
                query = urllib.parse.urlencode({"appsecret_proof": appsecret_proof(APP_SECRET, token)})
                request = urllib.request.Request(
                    f"{self.stack.sandbox_url}/v26.0/{leadgen_id}?{query}",
                    headers={"Authorization": f"Bearer {token}"},
                    method="DELETE",
                )
                urllib.request.urlopen(request, timeout=20).close()
            return True

        self.errands.see_through(f"deleting {len(chosen)} at Meta", take_away)
        return Struck(True)
