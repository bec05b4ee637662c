"""The command line: arguments in, sentences and exit statuses out.

`main` builds the parser and runs one command; each other module holds the commands of one
group. Heavy modules are imported by the command that needs them, so that `--help` answers at
once.
"""
