"""From ``git clone`` to standing in block 0's attention in VS Code's own debugger, as its editor does it.

The debug adapter (debugpy) is spoken to as VS Code speaks to it, in the Debug Adapter Protocol, with the configuration
that ``npgemma/show/STOPPING.md`` gives; what a user would see is printed.  Three commands: clone, the README's first
one, F5.  Needs debugpy in the Python that runs this; the checkout's own environment needs none.

    python tools/first_stop.py                                     # clone this repository, install, stop
    python tools/first_stop.py --regular                           # the same with 'pip install .'
    python tools/first_stop.py --condition "w.path == 'text.blocks.2.attn.'"
    python tools/first_stop.py --checkout . --python .venv/bin/python       # no clone, no installation
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = "npgemma/attention.py"
# The decoder's attention, once q, k and v are there.
STATEMENT = "mixed = attend(q_rot,"
HOVERED = ("q_rot", "mask", "x")


class Adapter:
    """A debug adapter on its standard streams, and what it has told so far."""

    def __init__(self):
        command = [sys.executable, "-m", "debugpy.adapter"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.number = 0
        self.heard = []

    def send(self, command, **arguments):
        """Send a request; gives its number."""
        self.number += 1
        message = {"seq": self.number, "type": "request", "command": command, "arguments": arguments}
        data = json.dumps(message).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(data) + data)
        self.process.stdin.flush()
        return self.number

    def receive(self):
        """Wait for the next message."""
        length = 0
        while line := self.process.stdout.readline().strip():
            length = int(line.partition(b":")[2]) if line.lower().startswith(b"content-length") else length
        if not length:
            raise SystemExit("the debug adapter has ended")
        message = json.loads(self.process.stdout.read(length))
        self.heard.append(message)
        return message

    def until(self, fits):
        """Give the first message that fits, heard already or not yet."""
        for message in self.heard:
            if fits(message):
                return message
        while not fits(message := self.receive()):
            if message.get("event") == "terminated":
                raise SystemExit("the program ended without a stop")
        return message

    def close(self):
        """End the program, then the adapter; only then may its streams be closed."""
        number = self.send("disconnect", terminateDebuggee=True)
        while self.receive().get("request_seq") != number:
            pass
        self.process.communicate(timeout=30)

    def event(self, name):
        """Wait for an event; gives its body."""
        return self.until(lambda message: message.get("event") == name).get("body", {})

    def answer(self, number):
        """Wait for the response to a request; gives its body."""
        response = self.until(lambda message: message.get("request_seq") == number)
        if not response["success"]:
            raise SystemExit(f"{response['command']}: {response.get('message')}")
        return response.get("body", {})

    def ask(self, command, **arguments):
        """Send a request and wait for its response."""
        return self.answer(self.send(command, **arguments))


def configuration(checkout, python):
    """The launch configuration of the page, as VS Code hands it on; output goes here, for there is no terminal."""
    page = (checkout / "npgemma/show/STOPPING.md").read_text()
    [found] = json.loads(re.search(r"```json\n(.*?)```", page, re.DOTALL)[1])["configurations"]
    return found | {"cwd": str(checkout), "python": [str(python)], "console": "internalConsole"}


def stop(checkout, python, condition):
    """Launch, stop at the breakpoint, and print what the editor would show."""
    source = (checkout / FILE).read_text().splitlines()
    line = next(number for number, text in enumerate(source, 1) if text.strip().startswith(STATEMENT))
    adapter = Adapter()
    adapter.ask("initialize", adapterID="debugpy", linesStartAt1=True, columnsStartAt1=True, pathFormat="path")
    launched = adapter.send("launch", **configuration(checkout, python))
    adapter.event("initialized")
    point = {"line": line} | ({"condition": condition} if condition else {})
    adapter.ask("setBreakpoints", source={"path": str(checkout / FILE)}, breakpoints=[point])
    adapter.ask("configurationDone")
    adapter.answer(launched)
    thread = adapter.event("stopped")["threadId"]
    frames = adapter.ask("stackTrace", threadId=thread)["stackFrames"]
    for frame in frames[:8]:
        print(f"  {frame['name']:20} {Path(frame['source']['path']).name}:{frame['line']}")
    inside = frames[0]["id"]
    shown = {name: hover(adapter, name, inside) for name in ("w.path", *HOVERED)}
    [scope, *_] = adapter.ask("scopes", frameId=inside)["scopes"]
    variables = adapter.ask("variables", variablesReference=scope["variablesReference"])["variables"]
    print("Variables: " + " ".join(each["name"] for each in variables))
    for name, text in shown.items():
        print(f"  {name:8} {text}")
    adapter.close()
    return frames[0], line, shown


def hover(adapter, name, frame):
    """What a hover over a name shows."""
    return adapter.ask("evaluate", expression=name, frameId=frame, context="hover")["result"]


def install(folder, regular):
    """Clone and install as the README says; gives the checkout and its Python."""
    page = (ROOT / "README.md").read_text()
    first = page.split("<!-- ci: run -->\n```\n")[1].splitlines()[0]
    command = first.replace("pip install -q -e", "pip install -q") if regular else first
    checkout = Path(folder) / "npgemma"
    for number, words in enumerate((["git", "clone", "-q", str(ROOT), str(checkout)], ["bash", "-c", command]), 1):
        print(f"{number}. {command if words[0] == 'bash' else 'git clone'}", flush=True)
        subprocess.run(words, cwd=checkout if words[0] == "bash" else folder, check=True)
    return checkout, checkout / ".venv/bin/python"


def main():
    """Do it, and exit with 1 where a user would stumble."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regular", action="store_true", help="'pip install .' instead of 'pip install -e .'")
    parser.add_argument("--condition", help="of the breakpoint, an expression")
    parser.add_argument("--checkout", type=Path, help="a checkout that is there already")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="the Python that it runs in")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # Not resolved: a virtual environment's Python is a link, and knows its packages by where it lies.
        there = args.checkout and (args.checkout.resolve(), args.python.absolute())
        checkout, python = there or install(folder, args.regular)
        started = time.perf_counter()
        print("3. F5, with a breakpoint set in npgemma/attention.py")
        frame, line, shown = stop(checkout, python, args.condition)
        print(f"stopped after {time.perf_counter() - started:.1f} s")
        inside = Path(frame["source"]["path"]).resolve() == (checkout / FILE).resolve()
    wanted = args.condition or shown["w.path"] == "'text.blocks.0.attn.'"
    hovers = all("mean" in shown[name] and "|" in shown[name] for name in HOVERED)
    right = inside and frame["line"] == line and wanted and hovers
    print("as promised" if right else "NOT as promised")
    raise SystemExit(0 if right else 1)


if __name__ == "__main__":
    main()
