"""Texts that try the native reader of SMILES: hard molecules, other spellings, mutations."""

from __future__ import annotations

import random
import re

from rdkit import Chem, rdBase

# Cages, annulenes, macrocycles, porphyrins, fused systems, odd valences, metals, symmetric configurations, salts.
_HARD = r"""
C12C3C4C1C5C2C3C45 C1C2CC3CC1CC(C2)C3 C1CC2CCC1CC2 C1C2CC1C2 C12C3C1C23 C1CC2C3CCC(C3)C2C1 C12CC3CC(C1)CC(C2)C3
c1cc2cc3ccc(cc4ccc(cc5ccc(cc1n2)[nH]5)n4)[nH]3 C1=CC=CC=CC=CC=CC=CC=CC=CC=C1 C1=CC=CC=CC=CC=C1 c1ccc2c(c1)-c1ccccc12
c1cc2ccc3ccc4ccc5ccc6ccc1c1c2c3c4c5c61 C1=CC2=CC=CC3=CC=CC1=C23 C1=CC2=C3C1=CC=C3C=C2 c1ccc2cccc-2cc1 O=C1C=Cc2ccccc21
c1ccc2c(c1)sc1ccccc12 c1ccc2c(c1)oc1c2ccc2ccccc21 C1=CN2C=CC=C2C=C1 c1cnc2nccnc2n1 c1ccc2nc3ccccc3nc2c1 c1coc2c1scc2
c1cc2cccc3c2c(c1)CC3 O=c1ccc2ccccc2o1 S=c1ccss1 c1ccsc1=O O=S1(=O)C=CC=C1 C1=CS(=O)C=C1 c1cc[n+]([O-])cc1
C1=CC=[N+]=C1 [O-][n+]1ccccc1 O=n1ccccc1 C[N+]1=CC=CC=C1 c1ccc[te]1 c1ccc[as]1 C1=CPC=C1 [cH+]1cc1 [CH-]1C=CC=C1
[cH-]1cccccc1 [C]1C=CC=C1 C1=CC=C[CH]1 c1c[n-]cn1 c1nn[nH]n1 c1nnn[n-]1 Cn1nnc(C)n1 [nH]1c[nH]cc1 C1#CC=CC=C1
C1=C=C=CC=C1 C=C=C=C C#CC#C N#N [C-]#[O+] CP(C)(C)=C C=P(=O)O FP(F)(F)(F)F F[Si-2](F)(F)(F)(F)F FI(F)F OI(=O)=O
O=I(=O)c1ccccc1 O[Cl+3]([O-])([O-])[O-] CS(C)(C)C C[S+](C)C C[S-] CS(=N)(=O)C O=S(=O)=O [SH6] [PH5] [BH4-] B12OB(O1)O2
C[B-](C)(C)C [AlH3] C[Al](C)C [Na]C C[Mg]Br C[Zn]C C[Hg]C [Fe] [Fe+2] [Cl-].[Cl-].[Fe+2] N[Pt](N)(Cl)Cl C[Pb](C)(C)C
Cl[Sn]Cl C[SiH3] C[GeH3] CC[Se]C [Se]=C C[As](C)C [Xe] F[Xe]F C1COCCOCCOCCOCCOCCO1 C1CCCCCCCCCCCCCCC1
c1cc2ccc1CCc1ccc(cc1)CC2 c1cc2cc(c1)Cc1cccc(c1)C2 C1CC23CCC2(C1)CC3 C1CC11CC11CC1 O=C1c2ccccc2C(=O)c2ccccc12
O=C1C=CC(=O)c2ccccc12 C1=CC(=C2C=CC=C2)C=C1 C1=CC(=C2C=CC=CC2)C=C1 C1=CC=CC1=C1C=C1 C[C@H]1CC[C@@H](C)CC1
C[C@@H]1CC[C@@H](C)CC1 O[C@H]1[C@H](O)[C@@H](O)[C@H](O)[C@@H](O)[C@@H]1O C[C@H](O)[C@H](O)[C@@H](C)O
C[C@H](F)C(C)[C@@H](C)F C[C@H](F)C(C)[C@H](C)F C/C=C/C(/C=C\C)O C/C=C/C(/C=C/C)O C[C@H]1C[C@H]2CC[C@@H]1C2
C1C[C@H]2CC[C@@H]1C2 C[C@]12CC[C@](C)(C1)C2 F[C@@H]1CC1 C[C@@H]1C[C@H]1C F/C=C/C=C/F F/C=C\C=C/F C/C=C1/CCCC(C)C1
C/C=C1CC/C(=C\C)CC1 CC=C1CCC1 C/C(F)=C(/C)F C/C=N/O C/C=N\O C/N=N/C [H]/C(F)=C(F)/[H] [H]/N=C/C C1CCCCCC/C=C/1
C1CCC/C=C\CCC1 C1C/C=C/CCCCCC1 C/1=C/CCCCCCCC1 C[S@](=O)c1ccccc1 C[S@@](=O)c1ccccc1 C[S@+]([O-])CC C[S@]1CCCC1
C[P@](CC)c1ccccc1 C[P@@](=O)(O)CC C[N@@+](CC)(CCC)C=C C[N@]1C[C@@H]1C N1(C)[C@H]2CC[C@@H]1CC2 C[Si@](F)(Cl)Br
[C@](F)(Cl)(Br)I [C@@H](C)(N)O C[C@@](C)(N)O [H][C@](C)(N)O N[C@H](C)[H] C[C@](N)([2H])O
C[C@H](N)C(=O)NCC(=O)[O-].[NH4+] C[N+](C)(C)C.[Cl-] C[NH+](C)C.[O-]C(=O)C [NH3+]CCS(=O)(=O)[O-] [O-]c1ccccc1C[NH3+]
OC(=O)CC(O)(CC(=O)[O-])C(=O)[O-].[Na+].[Na+] C[n+]1ccccc1.[I-] [O-]P(=O)([O-])OCC[N+](C)(C)C
[O-][Cl+3]([O-])([O-])[O-].[NH4+] O=[N+]([O-])[O-].[Ag+] O=[N+]([O-])c1ccc([O-])cc1 C[N+]([O-])(C)C C=[N+]=[N-]
CN=[N+]=[N-] [N-]=[N+]=[N-].[Na+] [C-]#N.[K+] CCO.CCO CCO.OCC CC(C)=O.CCC=O C1CC1.C=CC [CH3-] C[CH+]C C[C+](C)C
C[CH-]C [CH2+]C=C [NH-]C=O [OH-].[K+] [H+].[Cl-] OO.[Na+] O.O.O [NH2+]=C(N)N C[S-].C[S-].[Zn+2] [O-]B(O)O
F[B-](F)(F)F.[Na+] F[P-](F)(F)(F)(F)F.C[N+](C)(C)C [SiH3-] [PH2-] C[PH3+] [AsH4+] [Br+]
C=Cc1ncsc1CBr.Oc1cc(C(F)(F)F)nc(S)n1 CC(C)Br.O=[N+]([O-])c1c[nH]cn1 CCO.CCS COC(=P(=O)O)C [Cu+].[Cu+].[SH-2]
F[S-](F)(F)(F)F Cc1cc[n+]ccn1 Cc1ncc1 Cc1ccc1C COc1ccn1 Cc1cc2nncn2c2nnnn12  Clc1cccc2nn3ccnc3n12 Oc1cc[S+]c1
C1=[se]OC(=C1)C=O Cc1nn2ccccc2ccccn1 [O]=[Sn]=[O] CN1CCC[I@H]1C C([Co@H]([C@H](O)C)O)O [P@@](=[C@@])(O)CC
O=C(O)C12C3CCCC1C2CC3 OCC12C=CC(C1)c1ccccc12 N#C[S-].[NH4+] C.O=S(=O)(O)O C[C@@H]1CCC[N@H+]1C O=C1/C=C/C2CSCC2O1
CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC Oc1nc2ccc3nc(O)c4ccc1c2c34 Cc1nc2cccc3nc(N)nc(n1)-n-2-3
Oc1nCnc2ccccc12[H] [H]N(=O)(C)C [H]Cl(=O)(=O)=O [H]P(C)(C)C [H]S(C)(C)C [H]n1cccc1 [H]c1ccccc1
c12oc(c([H])c1sc1[H])c2=C([H])C([H])=C=C=1 c1cc2ccoc3ccc4cc(c1)c2c34
Cc1nc2cccc3c(N)c(n1)-n-23 c1cc2c3coc2cc1c1ccccc1cc3 c1nc2cccc3nc(N)[te]nc(n1)-n-2-3
N-C1=N-NC2=N-C(-C)=N-C3-N-2-C(=N-1)-C=C-C=3 Oc1cccc2nc3ccc3nc12 COc1ccccc1C=Cc1ccnc2ccc12 Brc1c(C(Br)Br)ccc2cccc[te]12
OCc1ccc2[n+](c1)CCc1c-2[nH]c2[n+]cccc12
"""
# Salts of larger counter-ions and with bonds to metals.
# Ions of metals, charges that stay because a cation needs them, parents that RDKit refuses, hydrides, dummy atoms.
_IONS = r"""
[I-][Ru](N)(N)N N#C[Au-]C#N [TlH2+] [PbH2+2] [SnH2+2] [BH2+] C[GaH+] [FeH+] [Fe-]C [Cu-](C)C [AlH4-] [GaH4-] [ZnH3-]
[SbH6+3] F[P-](F)(F)(F)(F)F F[As-](F)(F)(F)(F)F C[PH3-] [Cl-]C [Cl-][Ru] C[O-2] [NH4-]
CC(=O)[O-].C[N+](C)(C)CC[N+](C)(C)C CC(=O)O[Na] C[N]([K])C=O C[Mg]OC OC(=O)CC(O)(C(O)=O)CC(O)=O.C1CNCCN1
C[N+](C)(C)CC(C(=O)[O-])[N+](C)(C)C C[N+](C)(C)CC([N-]C)C(=O)[O-] C[N+](C)(C)CC([N-]C)[S-] C[N+](C)(C)CC([N-]C)C(=O)[O-]
C[N+](C)(C)C([N-]C)CC(C(=O)[O-])C(=O)[O-] C[N+](C)(C)C[BH2-]C[S-] C[N+](C)(C)C[B-](C)(C)C[S-] C[N+](C)(C)C[Fe-](C)C[S-]
[H-].[Na+] [H][H].[Pd] [H] [H-] CC.[H-].[H-].[H-].[H-].[Al+3].[Li+] [H][H][H] [H]1[H]C1 [H][H-] C[H]C
*C *c1ccccc1 C*C [1*]C(=O)N [*:1]CC *=C *#C C1CC*1 c1cc*cc1 [*H] [*+] *[C@H](C)O */C=C/C C*.CC *.* [H]* [*-]C
C1=CC=CC1=* C1=CC=C*1 c1ccc2*ccc2c1 [H]/N=C/C [H]/N=C(/C)CC [H]/N=N\[H] [H]/C=C/[H] [H]/N=C(/N)c1ccccc1 [2H]/N=C/C
[H]/[NH+]=C/C [H]/N=C/[O-].[Na+] [H]/N=c1/cccco1 [H]/C=C=C/C [H]/N1=C/C1 C1/C=N/[H]1 [H]/N=C/C.[H]/N=C\C
[H]/O=C/C [H]/C#C
"""
HARD = [*_HARD.split(), *_IONS.split()]

# Extensions that group configurations, which change no code.
GROUPED = [
    "C[C@H](F)Cl |&1:1|",
    "C[C@H](F)O |a:1,o1:3|",
    "CC(O)[C@H](F)O\t|a:1,o1:3,&2:4|",
    "C[C@@H](O)[C@H](C)F  |&3:1,3|",
]

_TOKENS = r"""
C C C N O c c c n o s S P F I B b p * 1 1 2 2 3 ( ) ( ) = # - . / \ : $ ~ @ [ ] + H %12 Cl Br [nH] [C@H] [C@@H] [C@]
[C@@] [N+] [O-] [NH3+] [n+] [S+] [se] [H] [2H] [13C] [CH2:1] [Na+] [Fe] [Si] [B-] [te] C(=O) N(=O)=O c1ccccc1
S(=O)(=O) P(=O) C1CC1 [N+](=O)[O-] /C=C/ C(F)(F)F %(12) -> |
"""
TOKENS = _TOKENS.split()


_SYMBOLS = "C C C N O S P B F Cl Br I H Se Si Na Fe Zn As Te c n o s p b se as te si Cn Uu R D A X Xe U *"
_PIECES = (
    ("", "", "", "0", "00", "2", "13", "012", "999", "1000"),
    _SYMBOLS.split(),
    ("", "", "", "", "@", "@@", "@@@", "@TH1", "@AL1", "@SP1"),
    ("", "", "", "H", "H0", "H1", "H2", "H3", "H4", "H5", "H9", "H01", "H10", "HH", "h"),
    ("", "", "", "+", "-", "++", "--", "+++", "+0", "-0", "+1", "+2", "-2", "+02", "-10", "+-", "+4", "-4", "++2"),
    ("", "", "", "", ":0", ":1", ":01", ":000", ":999", ":1000", ":12345", ":", ":a", ":-1"),
)
_PLACES = (
    "{} C{} {}C C{}C {}(F)(Cl)Br C{}(F)N C{}1CC1 {}1CC1C N{}(=O)O c1c{}ccc1 C{}=C C=C{} C#{} {}.[Na+] C{}1CCC1C O={}=O"
)


def bracketed(dice: random.Random) -> str:
    """A small molecule with an atom in brackets, whose parts may be wrong in any way."""
    atom = "".join(dice.choice(pieces) for pieces in _PIECES)
    return dice.choice(_PLACES.split()).format(f"[{atom}]")


# Each `{}` is a place for the next piece; digits are ring closures.
_RINGS = r"""
c1ccc({})cc1 c1cc({})c({})cc1 c1ccc2c(c1)cc({})[nH]2 C1CCN({})CC1 C1CN({})CCN1{} c1cnc({})nc1 c1csc({})n1 C1CC1{}
c1cc({})cc(=O)[nH]1 C1CCC({})CC1 c1ccc2nc({})ccc2c1 C1COC({})O1 c1nc({})nn1{} C[C@H]1CC[C@@H]({})CC1 C1CC(=O)N({})C1
c1oc({})cc1 C1=CC({})CC1 c1ccc2c(c1)C(=O)N({})C2=O C1CC2CC1CC2{} c1c({})c2ccccc2o1 c1cc[n+]({})cc1 S1C=CN({})C1
C1C2CC3CC1CC({})(C2)C3 c1ncn2ccc({})cc12
"""
_LINKS = r"""
C{} CC{} O{} N{} C(=O)N{} NC(=O){} S(=O)(=O)N{} OC(=O){} [C@H](C){} [C@@H](O){} /C=C/{} C#C{} C(C){} S{} [N+](C)(C)C{}
N(C){} OP(=O)(O){} C(F)(F){} [S@](=O){} C(=N){} B(O)O{} [Si](C)(C){}
"""
_ENDS = r"""
F Cl Br I C CC C#N C(F)(F)F C(=O)O C(=O)[O-] [N+](=O)[O-] N [NH3+] O OC S(=O)(=O)[O-] C(C)(C)C N(C)C C=O S SC NC(=N)N
P(=O)(O)O N=[N+]=[N-] C(=O)OC CO
"""
_SALTS = [".Cl", ".[Na+]", ".[Cl-]", ".O", ".CC(=O)O", ".[K+]", ".OC(=O)C(F)(F)F", ".[Br-]"]


def assembled(dice: random.Random) -> str:
    """A molecule like a drug: rings, what links them, what ends them, and now and then a salt."""
    rings, links, ends = _RINGS.split(), _LINKS.split(), _ENDS.split()
    text = "{}"
    for first in range(10, 10 + 3 * dice.randrange(1, 4), 3):  # each ring has closures of its own
        ring = re.sub(r"\d", lambda digit, first=first: f"%{first + int(digit[0])}", dice.choice(rings))
        text = text.replace("{}", ring, 1)
        if dice.random() < 0.7:
            text = text.replace("{}", dice.choice(links), 1)
    while "{}" in text:
        text = text.replace("{}", dice.choice(ends), 1)
    return text + (dice.choice(_SALTS) if dice.random() < 0.1 else "")


def respelled(text: str, dice: random.Random, n: int) -> list[str]:
    """Other spellings of a molecule: atoms in another order, Kekule forms, hydrogens and all bonds written."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(text, sanitize=False)
        if mol is None or Chem.SanitizeMol(mol, catchErrors=True):
            return [text]
        texts = [text]
        for _ in range(n):
            options = {
                "doRandom": True,
                "kekuleSmiles": dice.random() < 0.3,
                "allHsExplicit": dice.random() < 0.2,
                "allBondsExplicit": dice.random() < 0.2,
            }
            form = Chem.AddHs(mol) if dice.random() < 0.15 else Chem.Mol(mol)
            try:
                if options["kekuleSmiles"]:
                    Chem.Kekulize(form, clearAromaticFlags=True)
                texts.append(Chem.MolToSmiles(form, **options))
            except (ValueError, RuntimeError):
                continue
        return texts


def mutated(texts: list[str], dice: random.Random) -> str:
    """One of the texts with up to four edits."""
    text = dice.choice(texts)
    for _ in range(dice.randrange(1, 5)):
        at = dice.randrange(len(text) + 1)
        kind = dice.randrange(4)
        if kind == 0:
            text = text[:at] + text[at + 1 :]
        elif kind == 1:
            text = text[:at] + dice.choice(TOKENS) + text[at:]
        elif kind == 2:
            text = text[:at] + dice.choice(TOKENS) + text[at + 1 :]
        else:
            other = dice.choice(texts)
            cut = dice.randrange(len(other) + 1)
            text = text[:at] + other[cut:]
    return text
