"""What the pack `admet` learns and from which files: the one place for its endpoints, their sources, units and licences.

`make_admet.py` makes the table of it, `admet_pages.py` the tasks of `admet.toml` and the tables of `docs/endpoints.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from admet_endpoints import TOX21

TOXCAST = "toxcast:"  # before the name of an assay of ToxCast
MIN_TOXCAST, ACTIVE_TOXCAST = 2_500, (0.06, 0.94)  # values, and the share of actives, that an assay of ToxCast needs


class Range(NamedTuple):
    """Values outside are dropped: nobody measures them, so units or relation were misread."""

    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class Column:
    """A column of a source and the endpoint that it is about.

    convert: from the source's unit to the endpoint's, a name of `CONVERT`. where: a column and the values that a row
    must have there. within: in the endpoint's unit. whole: only rows that are one molecule, without a counter-ion.
    """

    column: str
    task: str
    convert: str = "same"
    where: tuple[str, tuple[str, ...]] | None = None
    within: Range = Range()
    whole: bool = False


@dataclass(frozen=True)
class Source:
    """A file: `FOLDER/NAME.csv.gz`, or a table in the wheel of B3DB.

    board: the file is one of the 22 of the TDC benchmark group, whose split it carries.
    """

    path: str
    columns: tuple[Column, ...]
    licence: str
    reference: str
    board: bool = False
    smiles: str = "smiles"

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2].partition(".")[0]


CONVERT: Mapping[str, Callable[[float], float]] = {
    "same": lambda value: value,
    "log nM to log M": lambda value: value - 9,
    "uM to pIC50": lambda value: 6 - math.log10(value) if value > 0 else math.nan,
    "log to number": lambda value: 10**value,
    "fraction to %": lambda value: 100 * value,
    "free fraction to % bound": lambda value: 100 * (1 - value),
    "at least 4": lambda value: max(value, 4.0),
}
# Words that stand for classes.
WORDS = {"BBB+": "1", "BBB-": "0"}

AZ = "AstraZeneca's deposit in ChEMBL, doi 10.6019/CHEMBL3301361"
TDC = "CC BY 4.0 (TDC)"
CHEMBL = "CC BY-SA 3.0 (ChEMBL)"
PHARMABENCH = "PharmaBench, doi 10.1038/s41597-024-03793-0"
VEITH = "doi 10.1038/nbt.1581, by TDC"
CARBONMANGELS = "doi 10.1002/minf.201100069, by TDC"
CTOXPRED = "CToxPred, doi 10.1021/acs.jcim.3c01301"
PKSMART = "doi 10.1124/dmd.118.082966, by PKSmart"
MOLECULENET = "MoleculeNet, doi 10.1039/C7SC02664A"
CLINT = Range(0.3, 3_000)
PIC50 = Range(3, 10)
HUMAN = ("Homo sapiens",)


def _board(name: str, task: str, reference: str, licence: str = TDC, **entries: object) -> Source:
    return Source(f"admet/{name}", (Column(name, task, **entries),), licence, reference, board=True)  # type: ignore[arg-type]


def _pharmabench(name: str, column: str, task: str, convert: str = "same", within: Range = Range()) -> Source:
    columns = (Column(column, task, convert, within=within),)
    return Source(f"admet/pharmabench_{name}", columns, "CC0", PHARMABENCH)


def _pk(species: str, suffix: str, ppb: str) -> tuple[Column, ...]:
    return (
        Column(f"{species}_vdss_l_kg", f"VDss{suffix}"),
        Column(f"{species}_cl_ml_min_kg", f"CL{suffix}"),
        Column(f"{species}_fup", ppb, "free fraction to % bound"),
    )


def _isoform(name: str) -> tuple[str, str]:
    return f"cyp{name.lower()}", f"CYP{name}"


SOURCES: tuple[Source, ...] = (
    _board("caco2_wang", "Caco2", "doi 10.1021/acs.jcim.5b00642, by TDC"),
    _board("hia_hou", "HIA", "doi 10.1021/ci600343x, by TDC"),
    _board("pgp_broccatelli", "Pgp_inhibitor", "doi 10.1021/jm101421d, by TDC"),
    _board("bioavailability_ma", "F20", "doi 10.1016/j.jpba.2008.03.023, by TDC"),
    _board("lipophilicity_astrazeneca", "logD", f"{AZ}, by TDC", CHEMBL),
    _board("solubility_aqsoldb", "logS", "AqSolDB, doi 10.1038/s41597-019-0151-1, by TDC", "CC BY 4.0", whole=True),
    _board("bbb_martins", "BBB", "doi 10.1021/ci300124c, by TDC"),
    Source("admet/ppbr_az", (), CHEMBL, f"{AZ}, by TDC", board=True),  # five species in one: see ppbr_az_species
    _board("vdss_lombardo", "VDss", "doi 10.1021/acs.jcim.6b00044, by TDC"),
    _board("cyp2c9_veith", "CYP2C9_inhibitor", VEITH),
    _board("cyp2d6_veith", "CYP2D6_inhibitor", VEITH),
    _board("cyp3a4_veith", "CYP3A4_inhibitor", VEITH),
    _board("cyp2c9_substrate_carbonmangels", "CYP2C9_substrate", CARBONMANGELS),
    _board("cyp2d6_substrate_carbonmangels", "CYP2D6_substrate", CARBONMANGELS),
    _board("cyp3a4_substrate_carbonmangels", "CYP3A4_substrate", CARBONMANGELS),
    _board("half_life_obach", "half_life", "doi 10.1124/dmd.108.020479, by TDC"),
    _board("clearance_microsome_az", "CLint_HLM", f"{AZ}, by TDC", CHEMBL),
    _board("clearance_hepatocyte_az", "CLint_hepatocyte", f"{AZ}, by TDC", CHEMBL),
    _board("herg", "hERG_Wang", "doi 10.1021/acs.molpharmaceut.6b00471, by TDC"),
    _board("ames", "AMES", "doi 10.1021/ci300400a, by TDC"),
    _board("dili", "DILI", "doi 10.1021/acs.jcim.5b00238, by TDC"),
    _board("ld50_zhu", "LD50_rat", "doi 10.1021/tx900189p, by TDC"),
    Source(
        "admet/ppbr_az_species",
        (
            Column("ppbr_az", "PPB", where=("species", HUMAN)),
            Column("ppbr_az", "PPB_rat", where=("species", ("Rattus norvegicus",))),
            Column("ppbr_az", "PPB_dog", where=("species", ("Canis lupus familiaris",))),
            Column("ppbr_az", "PPB_mouse", where=("species", ("Mus musculus",))),
            Column("ppbr_az", "PPB_guinea_pig", where=("species", ("Cavia porcellus",))),
        ),
        CHEMBL,
        AZ,
    ),
    Source("admet/cyp1a2_veith", (Column("cyp1a2_veith", "CYP1A2_inhibitor"),), TDC, VEITH),
    Source("admet/cyp2c19_veith", (Column("cyp2c19_veith", "CYP2C19_inhibitor"),), TDC, VEITH),
    Source("admet/pampa_ncats", (Column("pampa_ncats", "PAMPA"),), TDC, "doi 10.1177/24725552211017520, by TDC"),
    Source(
        "admet/hlm_stability",
        (Column("hlm_stability", "HLM_unstable"),),
        TDC,
        "doi 10.1021/acs.chemrestox.2c00207, by TDC",
    ),
    Source(
        "admet/rlm_stability",
        (Column("rlm_stability", "RLM_unstable"),),
        TDC,
        "doi 10.1021/acs.chemrestox.2c00207, by TDC",
    ),
    Source("admet/herg_karim", (Column("herg_karim", "hERG_blocker"),), TDC, "doi 10.1186/s13321-021-00541-z, by TDC"),
    Source(
        "admet/skin_reaction",
        (Column("skin_reaction", "skin_sensitization"),),
        TDC,
        "doi 10.1016/j.taap.2014.12.014, by TDC",
    ),
    Source(
        "admet/carcinogens_lagunin",
        (Column("carcinogens_lagunin", "carcinogen"),),
        TDC,
        "doi 10.1002/qsar.200860192, by TDC",
    ),
    Source("admet/herg_ctoxpred", (Column("herg_pic50", "hERG_pIC50", within=PIC50),), f"MIT; {CHEMBL}", CTOXPRED),
    Source("admet/nav15_ctoxpred", (Column("nav15_pic50", "Nav1.5_pIC50", within=PIC50),), f"MIT; {CHEMBL}", CTOXPRED),
    Source(
        "admet/cav12_ctoxpred",
        (Column("cav12_pic50", "Cav1.2_pIC50", within=Range(3, 11.2)),),
        f"MIT; {CHEMBL}",
        CTOXPRED,
    ),
    _pharmabench("logd", "pb_logd", "logD"),
    _pharmabench("watersol", "pb_log_solubility_nm", "logS", "log nM to log M", Range(-12, 2)),
    _pharmabench("ppb", "pb_ppb_fraction", "PPB", "fraction to %"),
    _pharmabench("hummiccl", "pb_hlm_log_clint", "CLint_HLM", "log to number", CLINT),
    _pharmabench("ratmiccl", "pb_rlm_log_clint", "CLint_RLM", "log to number", CLINT),
    _pharmabench("moumiccl", "pb_mlm_log_clint", "CLint_MLM", "log to number", CLINT),
    *(
        _pharmabench(file, f"pb_{file}_ic50_um", f"{task}_pIC50", "uM to pIC50", Range(3, 10))
        for file, task in map(_isoform, ("2C9", "2D6", "3A4"))
    ),
    _pharmabench("ames", "pb_ames", "AMES"),
    Source(
        "admet/cyp_openadmet_pic50",
        tuple(
            Column(f"{column}_pic50", f"{task}_pIC50", "at least 4")
            for column, task in map(_isoform, ("1A2", "2C9", "2D6", "3A4"))
        ),
        "Apache-2.0",
        "OpenADMET, training set of the CYP inhibition challenge",
    ),
    Source(
        "admet/human_pk_lombardo",
        (
            *_pk("human", "", "PPB"),
            Column("human_mrt_h", "MRT"),
            Column("human_thalf_h", "half_life"),
        ),
        "Apache-2.0",
        PKSMART,
    ),
    Source(
        "admet/animal_pk",
        tuple(
            column for species in ("rat", "dog", "monkey") for column in _pk(species, f"_{species}", f"PPB_{species}")
        ),
        "Apache-2.0",
        "PKSmart, doi 10.1186/s13321-025-01066-5",
    ),
    Source(
        "admet/bsep_chembl",
        (Column("bsep_pic50", "BSEP_pIC50", where=("relation", ("", "="))), Column("bsep_active", "BSEP_inhibitor")),
        f"MIT; {CHEMBL}",
        "AMPL, doi 10.1021/acs.jcim.9b01053, from ChEMBL 25",
    ),
    Source(
        "moleculenet/delaney",
        (Column("log_solubility_mol_per_L", "logS", whole=True),),
        "MIT (chemprop)",
        f"ESOL, doi 10.1021/ci034243x, by {MOLECULENET}",
    ),
    Source("moleculenet/lipo", (Column("lipo", "logD"),), CHEMBL, f"{AZ}, by {MOLECULENET}"),
    Source("moleculenet/bbbp", (Column("p_np", "BBB"),), "MIT (chemprop)", f"doi 10.1021/ci300124c, by {MOLECULENET}"),
    Source(
        "moleculenet/bace",
        (Column("Class", "BACE1"), Column("pIC50", "BACE1_pIC50")),
        "MIT (chemprop)",
        f"doi 10.1021/acs.jcim.6b00290, by {MOLECULENET}",
    ),
    Source(
        "moleculenet/tox21",
        tuple(Column(name, name) for name in TOX21),
        "MIT (chemprop)",
        f"Tox21 challenge, doi 10.3389/fenvs.2015.00080, by {MOLECULENET}",
    ),
    Source(
        "moleculenet/hiv",
        (Column("HIV_active", "HIV"),),
        "MIT (chemprop)",
        f"DTP AIDS antiviral screen, by {MOLECULENET}",
    ),
    Source(
        "B3DB/B3DB_classification.tsv",
        (Column("BBB+/BBB-", "BBB"),),
        "CC0",
        "B3DB, doi 10.1038/s41597-021-01069-5",
        smiles="SMILES",
    ),
    Source(
        "B3DB/B3DB_regression.tsv",
        (Column("logBB", "logBB"),),
        "CC0",
        "B3DB, doi 10.1038/s41597-021-01069-5",
        smiles="SMILES",
    ),
    Source(
        "admet/toxcast", (), "public domain (US EPA)", f"ToxCast, doi 10.1021/acs.chemrestox.6b00135, by {MOLECULENET}"
    ),
)
