"""Record the call of a program that needs an AWS account, or that would not end.

The folder `bin` of the tests contains links to this file with the names of these programs. They
come before the real programs in PATH. Each call is added as a line of JSON to the file CALLS. The
output is a text that can be used as an argument of the next command.
"""

import json
import os
import sys
from pathlib import Path

call = {"program": Path(sys.argv[0]).name, "arguments": sys.argv[1:], "environment": {**os.environ}}
with Path(os.environ["CALLS"]).open("a") as calls:
    calls.write(json.dumps(call) + "\n")
sys.stdout.write("example\n")
