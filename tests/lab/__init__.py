"""The lab's own tests: does a lab do what its verbs say, and leave nothing?"""
