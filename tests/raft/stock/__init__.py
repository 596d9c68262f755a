"""Each defect of stock pysyncobj 0.3.17, shown on stock pysyncobj and absent from ours by the same script.

`world.py` is the stage: a clock, chance and FIFO links that a script moves by hand. `stock.py` and `ours.py`
are the two casts. Every scenario has two tests: the one on the stock library asserts that the defect is
there, so that it documents why our core differs and fails the day the premise is wrong.
"""
