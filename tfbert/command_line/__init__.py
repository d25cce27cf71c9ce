"""The command line's commands: one module each, with `arguments(argv)` and `run(arguments, emit)`, imported when it is asked for."""
