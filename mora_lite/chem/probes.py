"""Molecules that between them need all of RDKit's rules that the native reader imitates, and all of this package's."""

from __future__ import annotations

_CHAINS = r"""
C CCO CC(C)(C)C#N C1CC1 C%12CCCCC%12 C1CCCCC1C2CCCCC2 [CH3][CH2][OH] [13CH3:7]O [2H]OC BrCCCl FC(I)B(O)O [Na+].[Cl-]
[NH4+] [He] [Fe] [CH3] [CH2] [O][O] [N]=O
"""
_CLEAN_UP = r"""
CN(=O)=O C[N+](=O)[O-] CN=N#N O=Cl(=O)(=O)O C=P(=O)C c1ccn(=O)cc1 CP(C)(C)=O CS(=O)(=O)N
"""
_AROMATICITY = r"""
c1ccccc1 C1=CC=CC=C1 c1ccc2ccccc2c1 c1ccc2cc3ccccc3cc2c1 c1ccc2c(c1)ccc1ccccc12 c1ccc(cc1)-c1ccccc1 c1ccccc1c1ccccc1
c1cc[nH]c1 c1ccoc1 c1ccsc1 c1cc[se]c1 c1cnc[nH]1 Cn1cnc2c1c(=O)n(C)c(=O)n2C O=c1cc[nH]cc1 O=C1C=CC(=O)C=C1
O=c1cccccc1 c1ccc2cccc2cc1 C1=CC=CC=CC=C1 [cH-]1cccc1 c1cc[o+]cc1 C1=C[CH+]C=CC=C1 c1ccc2c(c1)[nH]c1ccccc12
c1cc2ccc3cccc4ccc(c1)c2c34 c1ccc2c(c1)c1ccccc1c1ccccc21 C1=CC=CN=CC=CO1 C1=CC=COC=CC=C1 N1C=CC=CC=CC=C1
C1=CC2=CC=CC2=C1 S1C=CSC=C1 c1ccc2nsnc2c1 c1cc2cc3ccc(cc4ccc(cc5ccc(cc1n2)[nH]5)n4)[nH]3 C1=CC=C2C(=C1)C=CC=C2
O=C1NC(=O)c2ccccc12 c1ccc2[nH]cnc2c1 B1C=CC=C1 c1ccpcc1 C1=C=CC=CC=1 N1=CC=NC=C1
"""
_CONJUGATION = r"""
CC(=O)N C=CC=C C=CO CSC=C CP(C)C=C CC#CC=O CC(=O)N=S(C)(C)=O CC=C=CC NC(N)=N C[Si](C)(C)C=C F[P-](F)(F)(F)(F)F
FS(F)(F)(F)(F)F C[Hg]C Cl[Pt](Cl)(N)N
"""
_RINGS = r"""
C1CC2CCC1C2 C1CC2CCC1CC2 C1C2CC3CC1CC(C2)C3 C12C3C4C1C5C2C3C45 C1CC11CC1 C1CC2CCC1CC2C3CCCCC3 C1CCC2(CC1)OCCO2
C1C2CC1C2 C1CCCCCCCCCCC1 c1cc2ccc1CCc1ccc(cc1)CC2
"""
_CONFIGURATIONS = r"""
C[C@H](N)C(=O)O C[C@@H](N)C(=O)O N[C@](C)(F)Cl [C@H](F)(Cl)Br C[C@]1(F)CCCO1 F/C=C/F F/C=C\F C(/F)=C/F C/C=C/C=C\C
F/C=C1/CCCC(C)C1 C[S@](=O)CC C[S@+]1CCC(C)C1 C[C@H]1CC[C@@H](C)CC1 C[C@H](O)[C@@H](O)[C@H](C)O C[C@@H]1CC[C@H](C)CC1
C[N@]1CC1 C/C=C1\CCC(C)C1 C1CCC/C=C/CCC1 [H][C@](F)(Cl)Br C[C@H]1C[C@@H]2CC[C@H]1C2 N[C@@H](Cc1c[nH]c2ccccc12)C(=O)O
"""
_PARENTS = r"""
CC(=O)[O-].[Na+] C[NH2+]C.[Cl-] [NH3+]CC(=O)[O-] C[N+](C)(C)CC(=O)[O-] O=S(=O)([O-])c1ccccc1.[K+]
CC(=O)O.OC(=O)CCCCC c1cc[nH+]cc1 [O-]c1ccccc1 CC(C)[NH-] C[S-] c1nnn[n-]1 O=[N+]([O-])[O-].[NH4+] CCO.CCO
OC(=O)C(=O)[O-].[Li+] C[P+](C)(C)C.[Br-] [CH2-]C O=C([O-])c1ccccc1[NH3+]
"""

PROBES = tuple(f"{_CHAINS} {_CLEAN_UP} {_AROMATICITY} {_CONJUGATION} {_RINGS} {_CONFIGURATIONS} {_PARENTS}".split())
