"""The endpoints of the pack `admet`: names, units, questions and what each means."""

from __future__ import annotations

from dataclasses import dataclass

TOX21 = {
    "NR-AR": ("activate the androgen receptor", "the androgen receptor, full length"),
    "NR-AR-LBD": (
        "activate the ligand-binding domain of the androgen receptor",
        "the androgen receptor's binding domain",
    ),
    "NR-AhR": ("activate the aryl hydrocarbon receptor", "the aryl hydrocarbon receptor"),
    "NR-Aromatase": ("inhibit aromatase", "inhibition of aromatase"),
    "NR-ER": ("activate the estrogen receptor alpha", "the oestrogen receptor alpha, full length"),
    "NR-ER-LBD": (
        "activate the ligand-binding domain of the estrogen receptor alpha",
        "the oestrogen receptor alpha's binding domain",
    ),
    "NR-PPAR-gamma": (
        "activate the peroxisome proliferator-activated receptor gamma",
        "the peroxisome proliferator-activated receptor gamma",
    ),
    "SR-ARE": ("activate the antioxidant response element", "the response to oxidative stress"),
    "SR-ATAD5": ("cause the genotoxic response of ATAD5", "the response to damage of DNA, by ATAD5"),
    "SR-HSE": ("activate the heat shock response", "the heat shock response"),
    "SR-MMP": ("disrupt the mitochondrial membrane potential", "loss of the mitochondrial membrane potential"),
    "SR-p53": ("activate the p53 pathway", "the p53 pathway"),
}


@dataclass(frozen=True)
class Endpoint:
    """A task.

    meaning: one sentence about what a value means. prompt: the question that the language model is asked.
    scale: on which values are averaged and learnt: `linear`, `log`, or `logit` of a percentage.
    auxiliary: learnt beside the others, for the encoder's sake, and left out of the pack.
    """

    name: str
    meaning: str = ""
    prompt: str = ""
    unit: str = ""
    scale: str = "linear"
    kind: str = "value"
    auxiliary: bool = False


def _value(name: str, unit: str, asked: str, meaning: str, scale: str = "linear", auxiliary: bool = False) -> Endpoint:
    return Endpoint(name, meaning, f"Question: What is the {asked}? Answer:", unit, scale, "value", auxiliary)


def _class(name: str, asked: str, meaning: str, auxiliary: bool = False) -> Endpoint:
    return Endpoint(name, meaning, f"Question: {asked}? Answer:", "", "linear", "class", auxiliary)


def _bound(name: str, species: str, auxiliary: bool = False) -> Endpoint:
    asked = f"percentage of the molecule that is bound to {species} plasma proteins"
    meaning = f"Share of the molecule in {species} plasma that is bound to proteins; 100 minus it is the free share."
    return _value(name, "%", asked, meaning, "logit", auxiliary)


def _microsomes(name: str, species: str) -> Endpoint:
    asked = f"intrinsic clearance of the molecule in {species} liver microsomes in mL/min/g"
    meaning = (
        f"How fast microsomes of {species} liver consume the molecule, per gram of protein, which is the same number "
        "as uL/min/mg; 3 is slow, 150 is fast."
    )
    return _value(name, "mL/min/g", asked, meaning, "log")


def _in_animal(species: str, auxiliary: bool = False) -> tuple[Endpoint, Endpoint]:
    return (
        _value(
            f"VDss_{species}",
            "L/kg",
            f"volume of distribution of the molecule in the {species} in L/kg",
            f"Volume of distribution at steady state in the {species}, after intravenous dosing.",
            "log",
            auxiliary,
        ),
        _value(
            f"CL_{species}",
            "mL/min/kg",
            f"plasma clearance of the molecule in the {species} in mL/min/kg",
            f"Total clearance from the plasma of the {species}, after intravenous dosing.",
            "log",
            auxiliary,
        ),
    )


def _cyp_pic50(name: str, by: str = "") -> Endpoint:
    meaning = f"Direct inhibition of human CYP{name}: minus the logarithm of the IC50 in mol/L, 6 is 1 uM."
    meaning = f"{meaning[:-1]}; 4 means 4 or less." if not by else meaning
    return _value(
        f"CYP{name}_pIC50{by}", "", f"pIC50 of the molecule against human CYP{name}", meaning, auxiliary=bool(by)
    )


def _cyp_inhibitor(name: str) -> Endpoint:
    meaning = f"Inhibits human CYP{name} in the screen of PubChem AID 1851."
    return _class(f"CYP{name}_inhibitor", f"Does the molecule inhibit human CYP{name}", meaning)


def _cyp_substrate(name: str) -> Endpoint:
    meaning = f"Human CYP{name} metabolises the molecule, as the literature on drugs reports."
    return _class(f"CYP{name}_substrate", f"Is the molecule a substrate of human CYP{name}", meaning)


def _channel(name: str, channel: str, note: str) -> Endpoint:
    meaning = f"Block of the human cardiac {channel}: minus the logarithm of the IC50 in mol/L, 6 is 1 uM. {note}"
    return _value(f"{name}_pIC50", "", f"pIC50 of the molecule against the human {channel} {name}", meaning)


def _tox21(name: str) -> Endpoint:
    asked, about = TOX21[name]
    return _class(name, f"Does the molecule {asked}", f"Active in the Tox21 assay {name}, about {about}.")


ENDPOINTS: tuple[Endpoint, ...] = (
    _value(
        "logS",
        "log mol/L",
        "aqueous solubility logS of the molecule in mol/L",
        "Logarithm of the solubility of the molecule itself, not of a salt, in water near 25 C; -4 is 0.1 mmol/L.",
    ),
    _value(
        "logD",
        "",
        "octanol/water distribution coefficient logD of the molecule at pH 7.4",
        "Logarithm of how much more of the molecule, ionised or not, goes into octanol than into water at pH 7.4.",
    ),
    _value(
        "Caco2",
        "log cm/s",
        "apparent permeability of the molecule through a layer of Caco-2 cells in log cm/s",
        "Logarithm of the apparent permeability through Caco-2 cells, a model of the gut wall; above -5.15 is high.",
    ),
    _class(
        "PAMPA",
        "Does the molecule pass an artificial membrane well",
        "High permeability through the artificial membrane of the PAMPA assay at pH 7.4, without transporters.",
    ),
    _class("HIA", "Is the molecule absorbed in the human intestine", "Absorbed well from the human intestine."),
    _class(
        "F20",
        "Is the oral bioavailability of the molecule in humans at least 20 %",
        "At least 20 % of an oral dose reaches the blood of a human.",
    ),
    _class(
        "Pgp_inhibitor",
        "Does the molecule inhibit P-glycoprotein",
        "Inhibits the efflux transporter P-glycoprotein (ABCB1).",
    ),
    _class(
        "BBB",
        "Does the molecule cross the blood-brain barrier",
        "Crosses the blood-brain barrier; compilations of reports, most about drugs.",
    ),
    _value(
        "logBB",
        "",
        "blood-brain partition coefficient logBB of the molecule",
        "Logarithm of the ratio of the concentrations in brain and in blood; above -1 counts as crossing the barrier.",
    ),
    _bound("PPB", "human"),
    _bound("PPB_rat", "rat"),
    _bound("PPB_dog", "dog"),
    _value(
        "VDss",
        "L/kg",
        "volume of distribution of the molecule in humans in L/kg",
        "Human volume of distribution at steady state after intravenous dosing; some 0.05 is the plasma alone.",
        "log",
    ),
    _value(
        "CL",
        "mL/min/kg",
        "plasma clearance of the molecule in humans in mL/min/kg",
        "Human total clearance from plasma after intravenous dosing; the liver's blood flow is about 20.",
        "log",
    ),
    _value(
        "half_life",
        "h",
        "plasma half-life of the molecule in humans in hours",
        "Human terminal half-life in plasma after intravenous dosing.",
        "log",
    ),
    _value(
        "MRT",
        "h",
        "mean residence time of the molecule in humans in hours",
        "Human mean residence time: how long a molecule stays in the body on average after intravenous dosing.",
        "log",
    ),
    *_in_animal("rat"),
    *_in_animal("dog"),
    _microsomes("CLint_HLM", "human"),
    _microsomes("CLint_RLM", "rat"),
    _microsomes("CLint_MLM", "mouse"),
    _value(
        "CLint_hepatocyte",
        "uL/min/10^6 cells",
        "intrinsic clearance of the molecule in hepatocytes in uL/min/10^6 cells",
        "How fast hepatocytes consume the molecule, from 3 to 150; human and rat cells, which the source mixes.",
        "log",
    ),
    _class(
        "HLM_unstable",
        "Is the molecule unstable in human liver microsomes",
        "Consumed fast by human liver microsomes; which class is which was inferred from measured clearances.",
    ),
    _class(
        "RLM_unstable",
        "Is the molecule unstable in rat liver microsomes",
        "Consumed fast by rat liver microsomes; which class is which was inferred from measured clearances.",
    ),
    *(_cyp_inhibitor(name) for name in ("1A2", "2C9", "2C19", "2D6", "3A4")),
    *(_cyp_pic50(name) for name in ("1A2", "2C9", "2D6", "3A4")),
    *(_cyp_substrate(name) for name in ("2C9", "2D6", "3A4")),
    _class(
        "hERG_blocker", "Does the molecule block the hERG channel", "Blocks the hERG channel with an IC50 below 10 uM."
    ),
    _channel("hERG", "potassium channel", "Many values of 5.0 and 4.5 stand for an IC50 above 10 or 30 uM."),
    _channel("Nav1.5", "sodium channel", "From several kinds of assay."),
    _channel("Cav1.2", "calcium channel", "From several kinds of assay."),
    _class(
        "BSEP_inhibitor", "Does the molecule inhibit the bile salt export pump", "Inhibits the bile salt export pump."
    ),
    _value(
        "BSEP_pIC50",
        "",
        "pIC50 of the molecule against the human bile salt export pump",
        "Inhibition of the bile salt export pump: minus the logarithm of the IC50 in mol/L; exact values only.",
    ),
    _class("DILI", "Does the molecule injure the liver", "Reported to injure the human liver; about drugs."),
    _class("AMES", "Is the molecule mutagenic in the Ames test", "Causes mutations in the bacteria of the Ames test."),
    _class("carcinogen", "Does the molecule cause cancer in rodents", "Causes cancer in studies on rats or mice."),
    _class(
        "skin_sensitization",
        "Does the molecule sensitise the skin",
        "Sensitises the skin of mice in the local lymph node assay.",
    ),
    _value(
        "LD50_rat",
        "-log mol/kg",
        "acute oral toxicity LD50 of the molecule in rats in -log mol/kg",
        "Oral dose that kills half of the rats, minus its logarithm in mol/kg: higher is more toxic.",
    ),
    *map(_tox21, TOX21),
    _value(
        "BACE1_pIC50",
        "",
        "pIC50 of the molecule against human beta-secretase 1",
        "Inhibition of human beta-secretase 1: minus the logarithm of the IC50 in mol/L.",
    ),
    _class(
        "BACE1",
        "Does the molecule inhibit human beta-secretase 1",
        "Inhibits human beta-secretase 1, IC50 below 100 nM.",
    ),
    _bound("PPB_mouse", "mouse", auxiliary=True),
    _bound("PPB_monkey", "monkey", auxiliary=True),
    _bound("PPB_guinea_pig", "guinea pig", auxiliary=True),
    *_in_animal("monkey", auxiliary=True),
    *(_cyp_pic50(name, "_PharmaBench") for name in ("2C9", "2D6", "3A4")),
    _class(
        "hERG_Wang",
        "Does the molecule block the hERG channel weakly",
        "Blocks the hERG channel, with a cut-off that the source does not give, some 30 uM.",
        auxiliary=True,
    ),
)
