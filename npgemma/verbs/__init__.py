"""The verbs of the command, a module each: ``add(subparsers)`` describes its arguments, ``run(args)`` does it."""
