#!/usr/bin/env bash
# Lint, types and tests, as CI runs them; --no-tests leaves the tests out.  Needs: pip install -e '.[test,check]'
set -euo pipefail
cd "$(dirname "$0")/.."
flake8 npgemma tests tools
isort --check-only --diff npgemma tests tools
mypy --config-file setup.cfg
[ "${1:-}" = --no-tests ] || pytest -n auto "$@"
