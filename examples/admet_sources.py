"""The files that the pack `admet` is learnt from: columns, units, origins and licences.

The endpoints are in `admet_endpoints.py`. `make_admet.py` makes the table of both, `admet_pages.py` the tasks of
`admet.toml` and the tables of `docs/endpoints.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from admet_endpoints import TOX21


class Range(NamedTuple):
    """Values outside are dropped: nobody measures them, so units or relation were misread."""

    low: float
    high: float


ANY = Range(-math.inf, math.inf)


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
    within: Range = ANY
    whole: bool = False


class Origin(NamedTuple):
    """Who measured or gathered the values, where that is published, and under which licence they came."""

    title: str
    reference: str
    licence: str


@dataclass(frozen=True)
class Source:
    """A file: `FOLDER/NAME.csv.gz`, or a table in the wheel of B3DB.

    board: the file is one of the 22 of the TDC benchmark group, whose split it carries.
    """

    path: str
    origin: Origin
    columns: tuple[Column, ...]
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
ISOFORMS = ("2C9", "2D6", "3A4")  # the cytochromes that most sources have
# Words that stand for classes.
WORDS = {"BBB+": "1", "BBB-": "0"}

_CHEMBL = "CC BY-SA 3.0 (ChEMBL)"
_TDC = "CC BY 4.0 (as TDC states)"
_CHEMPROP = "MIT (chemprop's data)"
AZ = Origin("AstraZeneca's deposit in ChEMBL", "doi 10.6019/CHEMBL3301361", _CHEMBL)
PHARMABENCH = Origin("PharmaBench", "doi 10.1038/s41597-024-03793-0", "CC0")
VEITH = Origin("Veith 2009", "doi 10.1038/nbt.1581", _TDC)
CARBONMANGELS = Origin("Carbon-Mangels 2011", "doi 10.1002/minf.201100069", _TDC)
CTOXPRED = Origin("CToxPred", "doi 10.1021/acs.jcim.3c01301", f"MIT; {_CHEMBL}")
STABILITY = Origin("Li 2022", "doi 10.1021/acs.chemrestox.2c00207", _TDC)
LOMBARDO = Origin("Lombardo 2018", "doi 10.1124/dmd.118.082966", "Apache-2.0 (PKSmart)")
PKSMART = Origin("PKSmart", "doi 10.1186/s13321-025-01066-5", "Apache-2.0")
OPENADMET = Origin("OpenADMET", "training set of the CYP inhibition challenge", "Apache-2.0")
AMPL = Origin("ChEMBL 25, by AMPL", "doi 10.1021/acs.jcim.9b01053", f"MIT; {_CHEMBL}")
B3DB = Origin("B3DB", "doi 10.1038/s41597-021-01069-5", "CC0")
MARTINS = "Martins 2012", "doi 10.1021/ci300124c"
CLINT = Range(0.3, 3_000)
PIC50 = Range(3, 10)
MARKED_EXACT = ("relation", ("", "="))


def _board(name: str, task: str, origin: Origin, whole: bool = False) -> Source:
    return Source(f"admet/{name}", origin, (Column(name, task, whole=whole),), board=True)


def _by_tdc(name: str, task: str, title: str, doi: str) -> Source:
    return Source(f"admet/{name}", Origin(title, f"doi {doi}", _TDC), (Column(name, task),))


def _pharmabench(name: str, column: str, task: str, convert: str = "same", within: Range = ANY) -> Source:
    return Source(f"admet/pharmabench_{name}", PHARMABENCH, (Column(column, task, convert, within=within),))


def _moleculenet(name: str, origin: tuple[str, str], columns: Mapping[str, str], whole: bool = False) -> Source:
    made = tuple(Column(column, task, whole=whole) for column, task in columns.items())
    return Source(f"moleculenet/{name}", Origin(*origin, _CHEMPROP), made)


def _b3db(name: str, column: str, task: str) -> Source:
    return Source(f"B3DB/{name}.tsv", B3DB, (Column(column, task),), smiles="SMILES")


def _pk(species: str, suffix: str) -> tuple[Column, ...]:
    return (
        Column(f"{species}_vdss_l_kg", f"VDss{suffix}"),
        Column(f"{species}_cl_ml_min_kg", f"CL{suffix}"),
        Column(f"{species}_fup", f"PPB{suffix}", "free fraction to % bound"),
    )


def _species(task: str, species: str) -> Column:
    return Column("ppbr_az", task, where=("species", (species,)))


SOURCES: tuple[Source, ...] = (
    _board("caco2_wang", "Caco2", Origin("Wang 2016", "doi 10.1021/acs.jcim.5b00642", _TDC)),
    _board("hia_hou", "HIA", Origin("Hou 2007", "doi 10.1021/ci600343x", _TDC)),
    _board("pgp_broccatelli", "Pgp_inhibitor", Origin("Broccatelli 2011", "doi 10.1021/jm101421d", _TDC)),
    _board("bioavailability_ma", "F20", Origin("Ma 2008", "doi 10.1016/j.jpba.2008.03.023", _TDC)),
    _board("lipophilicity_astrazeneca", "logD", AZ),
    _board("solubility_aqsoldb", "logS", Origin("AqSolDB", "doi 10.1038/s41597-019-0151-1", "CC BY 4.0"), whole=True),
    _board("bbb_martins", "BBB", Origin(*MARTINS, _TDC)),
    Source("admet/ppbr_az", AZ, (), board=True),  # five species in one column: ppbr_az_species has them apart
    _board("vdss_lombardo", "VDss", Origin("Lombardo 2016", "doi 10.1021/acs.jcim.6b00044", _TDC)),
    *(_board(f"cyp{name.lower()}_veith", f"CYP{name}_inhibitor", VEITH) for name in ISOFORMS),
    *(_board(f"cyp{name.lower()}_substrate_carbonmangels", f"CYP{name}_substrate", CARBONMANGELS) for name in ISOFORMS),
    _board("half_life_obach", "half_life", Origin("Obach 2008", "doi 10.1124/dmd.108.020479", _TDC)),
    _board("clearance_microsome_az", "CLint_HLM", AZ),
    _board("clearance_hepatocyte_az", "CLint_hepatocyte", AZ),
    _board("herg", "hERG_Wang", Origin("Wang 2016", "doi 10.1021/acs.molpharmaceut.6b00471", _TDC)),
    _board("ames", "AMES", Origin("Xu 2012", "doi 10.1021/ci300400a", _TDC)),
    _board("dili", "DILI", Origin("Xu 2015", "doi 10.1021/acs.jcim.5b00238", _TDC)),
    _board("ld50_zhu", "LD50_rat", Origin("Zhu 2009", "doi 10.1021/tx900189p", _TDC)),
    Source(
        "admet/ppbr_az_species",
        AZ,
        (
            _species("PPB", "Homo sapiens"),
            _species("PPB_rat", "Rattus norvegicus"),
            _species("PPB_dog", "Canis lupus familiaris"),
            _species("PPB_mouse", "Mus musculus"),
            _species("PPB_guinea_pig", "Cavia porcellus"),
        ),
    ),
    Source("admet/cyp1a2_veith", VEITH, (Column("cyp1a2_veith", "CYP1A2_inhibitor"),)),
    Source("admet/cyp2c19_veith", VEITH, (Column("cyp2c19_veith", "CYP2C19_inhibitor"),)),
    _by_tdc("pampa_ncats", "PAMPA", "Siramshetty 2021", "10.1177/24725552211017520"),
    Source("admet/hlm_stability", STABILITY, (Column("hlm_stability", "HLM_unstable"),)),
    Source("admet/rlm_stability", STABILITY, (Column("rlm_stability", "RLM_unstable"),)),
    _by_tdc("herg_karim", "hERG_blocker", "Karim 2021", "10.1186/s13321-021-00541-z"),
    _by_tdc("skin_reaction", "skin_sensitization", "Alves 2015", "10.1016/j.taap.2014.12.014"),
    _by_tdc("carcinogens_lagunin", "carcinogen", "Lagunin 2009", "10.1002/qsar.200860192"),
    Source("admet/herg_ctoxpred", CTOXPRED, (Column("herg_pic50", "hERG_pIC50", within=PIC50),)),
    Source("admet/nav15_ctoxpred", CTOXPRED, (Column("nav15_pic50", "Nav1.5_pIC50", within=PIC50),)),
    Source("admet/cav12_ctoxpred", CTOXPRED, (Column("cav12_pic50", "Cav1.2_pIC50", within=Range(3, 11.2)),)),
    _pharmabench("logd", "pb_logd", "logD"),
    _pharmabench("watersol", "pb_log_solubility_nm", "logS", "log nM to log M", Range(-12, 2)),
    _pharmabench("ppb", "pb_ppb_fraction", "PPB", "fraction to %"),
    _pharmabench("hummiccl", "pb_hlm_log_clint", "CLint_HLM", "log to number", CLINT),
    _pharmabench("ratmiccl", "pb_rlm_log_clint", "CLint_RLM", "log to number", CLINT),
    _pharmabench("moumiccl", "pb_mlm_log_clint", "CLint_MLM", "log to number", CLINT),
    *(
        _pharmabench(
            f"cyp{name.lower()}",
            f"pb_cyp{name.lower()}_ic50_um",
            f"CYP{name}_pIC50_PharmaBench",
            "uM to pIC50",
            PIC50,
        )
        for name in ISOFORMS
    ),
    _pharmabench("ames", "pb_ames", "AMES"),
    Source(
        "admet/cyp_openadmet_pic50",
        OPENADMET,
        tuple(Column(f"cyp{name.lower()}_pic50", f"CYP{name}_pIC50", "at least 4") for name in ("1A2", *ISOFORMS)),
    ),
    Source(
        "admet/human_pk_lombardo",
        LOMBARDO,
        (*_pk("human", ""), Column("human_mrt_h", "MRT"), Column("human_thalf_h", "half_life")),
    ),
    Source("admet/animal_pk", PKSMART, tuple(c for name in ("rat", "dog", "monkey") for c in _pk(name, f"_{name}"))),
    Source(
        "admet/bsep_chembl",
        AMPL,
        (Column("bsep_active", "BSEP_inhibitor"), Column("bsep_pic50", "BSEP_pIC50", where=MARKED_EXACT)),
    ),
    _moleculenet("delaney", ("ESOL", "doi 10.1021/ci034243x"), {"log_solubility_mol_per_L": "logS"}, whole=True),
    _moleculenet("lipo", AZ[:2], {"lipo": "logD"}),
    _moleculenet("bbbp", MARTINS, {"p_np": "BBB"}),
    _moleculenet(
        "bace", ("Subramanian 2016", "doi 10.1021/acs.jcim.6b00290"), {"Class": "BACE1", "pIC50": "BACE1_pIC50"}
    ),
    _moleculenet("tox21", ("Tox21 challenge", "doi 10.3389/fenvs.2015.00085"), {name: name for name in TOX21}),
    _b3db("B3DB_classification", "BBB+/BBB-", "BBB"),
    _b3db("B3DB_regression", "logBB", "logBB"),
)
