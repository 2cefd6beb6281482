"""The command line: one module for each group of commands, loaded only when its command is called.

Data goes to standard output, talk to standard error. Nothing here knows how a dataset is scanned or verified: a
command asks the daemon or calls a verb of ``reprod.ops`` and renders what comes back.
"""
