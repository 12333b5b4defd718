def read_smiles(
    text: bytes, offsets: bytes, standardize: int, /
) -> tuple[bytearray, bytearray, bytearray, bytearray, bytearray, bytearray, bytearray]: ...
def finish_graphs(
    atoms: bytes,
    bonds: bytes,
    endpoints: bytes,
    atom_ptr: bytes,
    bond_ptr: bytes,
    element_ptr: bytes,
    owner: bytes,
    flags: bytes,
    groups: bytes,
    /,
) -> tuple[bytearray, bytearray, bytearray, bytearray]: ...
def fingerprint_graphs(
    atoms: bytes, bonds: bytes, endpoints: bytes, atom_ptr: bytes, bond_ptr: bytes, /
) -> tuple[bytearray, bytearray]: ...
