#!/bin/bash
# Records the traces of this folder again: traces/record.sh [NAME...], without names all of them.
#
# Needs valgrind, the programs that are recorded (README.md has the versions), python3, and mmu.
# Takes the better part of an hour, since a program runs about a thousand times slower while it is
# traced. The records go through a pipe into the importer: only inputs of 150 MB are written.
#
#   MMU=mmu      how mmu is called
#   OUT=traces   where the traces go
#   WORK=/tmp/mmu-traces   where the inputs are made: a new folder, removed in the end; Python's
#                and SQLite's first accesses depend on its name
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
mmu=${MMU:-mmu}
out=$(cd "${OUT:-$here}" && pwd)
work=${WORK:-/tmp/mmu-traces}
mkdir "$work"
trap 'rm -rf "$work"' EXIT
cd "$work"
cp "$here"/inputs/* .

# record NAME SKIP COMMAND...: leave out SKIP accesses and keep ten million.
# Without environment and address randomisation a second recording is equal to the first one.
# Lackey goes on when its reader is gone, and xz survives milder signals than 9.
record() {
    local name=$1 skip=$2
    shift 2
    rm -f records
    mkfifo records
    env -i PATH=/usr/bin:/bin LC_ALL=C PYTHONHASHSEED=0 setarch -R \
        valgrind --tool=lackey --trace-mem=yes --log-file=records "$@" </dev/null >/dev/null 2>&1 &
    local recorder=$! status=0
    $mmu trace import - -o "$out/$name.parquet" --compact --skip "$skip" --limit 10000000 \
        <records || status=$?
    kill -9 $recorder 2>/dev/null || true
    wait $recorder 2>/dev/null || true
    rm -f records
    return $status
}

trace() {
    case $1 in
        cc1plus) # a program of 20 lines with <regex>, <map> and <iostream>: 71,000 lines to compile
            record $1 600000000 "$(gcc -print-prog-name=cc1plus)" -quiet \
                -imultiarch x86_64-linux-gnu -D_GNU_SOURCE -O2 -std=c++17 index.cpp -o /dev/null ;;
        python-join) # look-ups of random keys in a dict of 200,000
            record $1 440000000 /usr/bin/python3 -S python-join.py ;;
        python-json) # JSON written and read, sorting, dicts of lists
            record $1 270000000 /usr/bin/python3 -S python-json.py ;;
        sort) # the last merge of 160,000 lines with random keys
            python3 words.py
            record $1 290000000 sort --parallel=1 -S 512M -o /dev/null lines.txt ;;
        sqlite) # an index join of 200,000 customers with a million sales, 107 MB mapped
            rm -f shop.db
            sqlite3 shop.db <build.sql
            record $1 25000000 sqlite3 -init join.sql shop.db ;;
        xz) # text into a dictionary of 8 MB
            python3 words.py
            record $1 200000000 xz -6 -k -c text.txt ;;
        *)
            echo "no trace '$1'; accepted: $all" >&2
            exit 2 ;;
    esac
}

all="cc1plus python-join python-json sort sqlite xz"
[ $# -gt 0 ] || set -- $all
for name; do
    trace "$name"
done
