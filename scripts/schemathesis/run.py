"""Starts MongoDB, the carrier simulator and the service, gives it some data, and runs schemathesis against it.

Called by scripts/schemathesis.sh, which prepares the environment.
"""

import argparse
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pymongo
import pymongo.errors

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / "target/debug/ringmaster"
CALLER_ID = "+12025550100"
AUTH_ID, CARRIER_TOKEN = "MASIMULATOR000000000", "simulator-auth-token"
START_SECONDS = 60


class World:
    """The processes, ended in reverse order however this ends."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.processes: list[tuple[str, subprocess.Popen]] = []

    def start(self, name: str, command: list[str], environment: dict[str, str] | None = None) -> subprocess.Popen:
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        self.processes.append((name, process))
        return process

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def end(self) -> None:
        for _, process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at; all are held until the last is found."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def until(what: str, holds) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            sys.exit(f"in vain: {what}")
        time.sleep(0.1)


def start_mongod(world: World, port: int) -> str:
    """A one-member replica set with fresh data."""
    data = world.folder / "db"
    data.mkdir()
    world.start(
        "mongod",
        [
            os.environ["MONGOD"], "--replSet", "rs0", "--dbpath", str(data), "--port", str(port),
            "--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "512",
            "--setParameter", "diagnosticDataCollectionEnabled=false",
        ],
    )  # fmt: skip
    with pymongo.MongoClient("127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=500) as client:

        def initiated() -> bool:
            members = [{"_id": 0, "host": f"127.0.0.1:{port}"}]
            try:
                client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
            except pymongo.errors.OperationFailure as failure:
                return failure.code == 23
            except pymongo.errors.PyMongoError:
                return False
            return True

        until("mongod starts", initiated)
        until("mongod is primary", lambda: client.admin.command("hello")["isWritablePrimary"])
    return f"mongodb://127.0.0.1:{port}/?replicaSet=rs0"


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def start_service(world: World, admin_key: str) -> str:
    mongo, carrier, service = free_ports(3)
    uri = start_mongod(world, mongo)
    options = world.folder / "simulator.json"
    account = {"authId": AUTH_ID, "authTokens": [CARRIER_TOKEN], "callerIds": [CALLER_ID]}
    options.write_text(json.dumps({**account, "cps": 0, "ringDelayMs": {"min": 5, "max": 5}, "seed": 1}))
    command = [str(BINARY), "simulate", "--listen", f"127.0.0.1:{carrier}", "--options", str(options)]
    world.start("simulator", command)
    until("the simulator starts", lambda: answers(f"http://127.0.0.1:{carrier}/simulator/stats"))
    base = f"http://127.0.0.1:{service}"
    settings = {
        "HOST": "127.0.0.1",
        "PORT": str(service),
        "MONGODB_URI": uri,
        "MONGODB_DATABASE": "schemathesis",
        "BASE_URL": base,
        "PLIVO_AUTH_ID": AUTH_ID,
        "PLIVO_AUTH_TOKEN": CARRIER_TOKEN,
        "PLIVO_API_BASE": f"http://127.0.0.1:{carrier}",
        "PLIVO_CPS": "50",
        "ADMIN_API_KEY": admin_key,
        # Few calls at once, and no long waits for one: what is tested is the edge.
        "GLOBAL_MAX_CALLS": "3",
        "MAX_CONCURRENT_CALL_WAIT": "200",
        "SUBSEQUENT_CALL_WAIT": "1000",
        "MAX_CALLS_PER_MINUTE": "6000",
        "BOT_WARMUP_TIMEOUT": "500",
        "BOT_WARMUP_RETRIES": "0",
        "RUST_LOG": "info",
    }
    world.start("service", [str(BINARY), "serve"], settings)
    until("the service is ready", lambda: "ready" in world.log("service") and answers(f"{base}/health/ready"))
    return base


def post(base: str, key: str, path: str, body: dict) -> dict:
    request = urllib.request.Request(base + path, json.dumps(body).encode(), method="POST")
    request.add_header("content-type", "application/json")
    request.add_header("x-api-key", key)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def give_data(base: str, key: str) -> None:
    """A client with a list and a campaign that goes on for as long as we attack."""
    client = post(base, key, "/v1/clients", {"name": "Acme", "callerIds": [CALLER_ID]})["id"]
    contacts = [{"number": f"+1202555{index:04}", "firstName": "Ann"} for index in range(101, 200)]
    contact_list = {"name": "friends", "clientId": client, "contacts": contacts}
    list_id = post(base, key, "/v1/lists", contact_list)["id"]
    campaign = {
        "campaignName": "long", "listId": list_id, "fromNumber": CALLER_ID,
        "answer": {"type": "speak", "text": "Hello {{firstName}}"}, "pacing": {"intervalMs": 60000},
    }  # fmt: skip
    post(base, key, "/v1/campaigns", campaign)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=100, help="test cases per operation and phase")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--minutes", type=float, help="longest run; without it as long as it takes")
    parser.add_argument("--keep", action="store_true", help="keep logs and reports")
    arguments, more = parser.parse_known_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="schemathesis-", dir=ROOT / ".ringmaster"))
    world, admin_key = World(folder), secrets.token_urlsafe(32)
    try:
        base = start_service(world, admin_key)
        give_data(base, admin_key)
        command = [
            str(Path(sys.executable).parent / "schemathesis"),
            "--config-file", str(Path(__file__).with_name("schemathesis.toml")),
            "run", f"{base}/api-docs/openapi.json",
            "--checks=all", "--continue-on-failure", "--no-color",
            f"--max-examples={arguments.examples}", f"--seed={arguments.seed}",
            "--request-timeout=40", "--suppress-health-check=all",
            "--generation-database=none", "--report=junit", f"--report-dir={folder / 'report'}",
        ]  # fmt: skip
        if arguments.minutes:
            command.append(f"--max-time={arguments.minutes * 60:.0f}")
        environment = {**os.environ, "ADMIN_KEY": admin_key, "CARRIER_TOKEN": CARRIER_TOKEN}
        environment |= {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(Path(__file__).parent)}
        print(f"seed {arguments.seed}, {arguments.examples} examples", flush=True)
        began = time.monotonic()
        code = subprocess.run([*command, *more], env=environment, check=False, cwd=folder).returncode
        lines = [line for line in world.log("service").splitlines() if '"answered"' in line]
        statuses: dict[str, int] = {}
        for line in lines:
            found = re.search(r'"http.status":(\d+)', line)
            status = found.group(1) if found else "?"
            statuses[status] = statuses.get(status, 0) + 1
        print(f"seed {arguments.seed}: {len(lines)} requests in {time.monotonic() - began:.0f} s; by status {dict(sorted(statuses.items()))}")
        died = [name for name, process in world.processes if process.poll() is not None]
        if died:
            print(f"died: {died}")
        code = code or bool(died)
        arguments.keep = arguments.keep or code != 0
        return int(code)
    finally:
        world.end()
        if arguments.keep:
            print(f"logs and reports: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
