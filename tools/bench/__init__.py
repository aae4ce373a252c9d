"""The benchmarks: how fast, how small, how late. `python -m tools.bench --help` lists them.

Each one runs the real recorder against a load generator in a process of its own, checks what was
stored against what was sent, and puts every figure beside a ratio from the same run, because
absolute figures say as much about the machine as about the program.
"""
