import numpy as np, torch, pytest
from mora_lite.graph import *
def test_it(model, molecules):
    p = model.predict(molecules)
    print(p)
    many = molecules * 9
    ref = model.score(many, 512).values
    for s in (1,7,64,300,512):
        n = 40 if s==1 else len(many)
        got = model.score(many[:n], s).values
        print(s, np.array_equal(got, ref[:n]), np.nanmax(np.abs(got-ref[:n])))
