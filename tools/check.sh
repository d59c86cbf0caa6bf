#!/usr/bin/env bash
# Lint, types and tests, as CI runs them.  Needs: pip install '.[test,check]'
set -euo pipefail
cd "$(dirname "$0")/.."
flake8 npgemma tests tools
isort --check-only --diff npgemma tests tools
mypy --config-file setup.cfg
pytest "$@"
