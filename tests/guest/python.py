# SPDX-License-Identifier: Apache-2.0 OR MIT
# Runs below the directory that is its argument: imports modules with shared libraries and uses
# them. All modules have to come from there, and none may be compiled again.
import sys
from importlib.machinery import SourceFileLoader


def refuse(self, data, path, **options):
    sys.exit(f"{path}: its compiled module is stale or missing")


sys.dont_write_bytecode = True
SourceFileLoader.source_to_code = refuse

import bz2
import ctypes
import decimal
import hashlib
import json
import lzma
import sqlite3

root = sys.argv[1]
database = sqlite3.connect(":memory:")
database.execute("create table numbers (number integer)")
database.executemany("insert into numbers values (?)", [(number,) for number in range(1000)])
(total,) = database.execute("select sum(number) from numbers").fetchone()
assert total == 499500, total
text = json.dumps(list(range(1000))).encode()
assert lzma.decompress(lzma.compress(text)) == bz2.decompress(bz2.compress(text)) == text
assert hashlib.sha256(b"abc").hexdigest().startswith("ba7816bf8f01cfea")
assert decimal.Decimal(1) / 8 == decimal.Decimal("0.125")
assert ctypes.CDLL(None).abs(-5) == 5

files = [module.__file__ for module in sys.modules.values() if getattr(module, "__file__", None)]
elsewhere = [path for path in files if not path.startswith(root) and path != __file__]
assert not elsewhere, elsewhere
with open("/proc/self/maps") as maps:
    mapped = {line.split()[5] for line in maps if len(line.split()) > 5 and "x" in line.split()[1]}
mapped = {path for path in mapped if path.startswith("/")}
assert mapped and all(path.startswith(root) for path in mapped), mapped
for name in ["_sqlite3", "_ctypes", "_decimal", "_lzma"]:
    assert any(f"/{name}." in path for path in mapped), (name, mapped)
print(len(files), len(mapped))
