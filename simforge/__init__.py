"""SimForge: personalised preference data made with simulated users.

The command line is the front door (`simforge generate`); from Python, `simforge.pipeline.generate` is the same
run as a function. Importing this package loads nothing heavy: models, Ray, Arrow and the clients of the Hub are
imported where they are used.
"""

__version__ = "0.1.0"
