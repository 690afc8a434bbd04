"""Run every script of this folder, and say so where one prints what the others do not."""

import subprocess
import sys
from pathlib import Path

printed = {}
for script in sorted(Path(__file__).parent.glob("by_*.py")):
    run = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, text=True, check=True)
    printed[script.name] = run.stdout.splitlines()[-1]
    print(f"{script.name}: {printed[script.name]}", flush=True)
sys.exit("they differ" if len(set(printed.values())) != 1 else None)
