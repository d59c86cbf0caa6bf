"""README's lines for a shell's start-up file, in the shells that are here."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
BIN = Path(sys.executable).parent
ASK = {
    # What bash does at Tab: it gives the words to the function, and takes what lies in COMPREPLY.
    "bash": """
        ask() { COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_TYPE=9
                $(complete -p npgemma | sed 's/.* -F \\([^ ]*\\) .*/\\1/') npgemma; printf '%s\\n' "${COMPREPLY[@]}"; }
        ask npgemma gen; ask npgemma generate --dtype b""",
    "fish": "complete -C 'npgemma gen'; complete -C 'npgemma generate --dtype b'",
}


@pytest.mark.parametrize("shell, file", [("bash", ".bashrc"), ("fish", "config.fish")])
def test_a_shell_with_readme_s_line_completes_verbs_and_values(shell, file):
    missing = [each for each in (shutil.which(shell), BIN / "npgemma", BIN / "register-python-argcomplete")
               if not each or not Path(each).exists()]
    if missing:
        pytest.skip(f"not here: {shell}, or the environment's commands")
    [line] = [line.partition("#")[0] for line in README.splitlines() if line.endswith(file)]
    line = line.replace("~/npgemma/.venv/bin", str(BIN))
    script = f"PATH={BIN}:$PATH\n" if shell == "bash" else f"set -x PATH {BIN} $PATH\n"
    done = subprocess.run([shell, "-c", f"{script}{line}\n{ASK[shell]}"], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert [each.split("\t")[0].strip() for each in done.stdout.splitlines()] == ["generate", "bfloat16"]
