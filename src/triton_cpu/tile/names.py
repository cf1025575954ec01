"""The element-wise ops of TTIR and what they are called in the tile IR."""

INTEGER_COMPARISONS = ("eq", "ne", "slt", "sle", "sgt", "sge", "ult", "ule", "ugt", "uge")
FLOAT_COMPARISONS = (
    *("false", "oeq", "ogt", "oge", "olt", "ole", "one", "ord"),
    *("ueq", "ugt", "uge", "ult", "ule", "une", "uno", "true"),
)

ATOMIC_OPS = {
    **{1: "and", 2: "or", 3: "xor", 4: "add", 5: "fadd", 6: "max", 7: "min"},
    **{8: "umax", 9: "umin", 10: "xchg"},
}
"""`atomic_rmw_op` of TTIR → LLVM's name of the operation."""

ELEMENTWISE_NAMES = {
    **{f"arith.{name}i": name for name in ("add", "sub", "mul", "and", "or", "xor")},
    **{f"arith.{name}f": name for name in ("add", "sub", "mul", "div", "rem", "neg")},
    **{f"arith.{stem}{sign}i": f"{sign}{stem}" for stem in ("div", "rem") for sign in "su"},
    **{f"arith.{stem}{sign}i": f"{sign}{stem}" for stem in ("max", "min") for sign in "su"},
    "arith.ceildivsi": "ceildiv",
    "arith.shli": "shl",
    "arith.shrsi": "sar",
    "arith.shrui": "shr",
    "arith.cmpi": "cmp",
    "arith.cmpf": "cmp",
    "arith.select": "select",
    "arith.maxnumf": "fmaxnum",
    "arith.minnumf": "fminnum",
    "arith.maximumf": "fmaximum",
    "arith.minimumf": "fminimum",
    **{f"math.{name}": name for name in ("sqrt", "rsqrt", "exp", "exp2", "log", "log2", "sin")},
    **{f"math.{name}": name for name in ("cos", "erf", "tanh", "floor", "ceil", "round", "fma")},
    **{f"math.{name}": name for name in ("copysign", "ctpop", "ctlz", "cttz")},
    "math.absf": "fabs",
    "math.absi": "iabs",
    "math.powf": "pow",
    "math.roundeven": "rint",
    "tt.precise_sqrt": "sqrt",
    "tt.precise_divf": "div",
    "tt.clampf": "clamp",
    "tt.mulhiui": "mulhi",
    "tt.addptr": "addptr",
    "tt.extern_elementwise": "extern",
    "arith.extsi": "sext",
    "arith.extui": "zext",
    "arith.trunci": "trunc",
    "arith.index_cast": "sext",
    "arith.sitofp": "sitofp",
    "arith.uitofp": "uitofp",
    "arith.fptosi": "fptosi",
    "arith.fptoui": "fptoui",
    "arith.extf": "fcast",
    "arith.truncf": "fcast",
    "tt.fp_to_fp": "fcast",
    "arith.bitcast": "bitcast",
    "tt.bitcast": "bitcast",
    "tt.int_to_ptr": "inttoptr",
    "tt.ptr_to_int": "ptrtoint",
}

STRUCTURAL_NAMES = {
    "tt.get_program_id": "program_id",
    "tt.get_num_programs": "num_programs",
    "tt.make_range": "range",
    "tt.expand_dims": "expand",
    "tt.cat": "cat",
    "ub.poison": "poison",
    "llvm.intr.assume": "assume",
    "gpu.barrier": "barrier",
    "ttg.barrier": "barrier",
    "ttg.local_barrier": "barrier",
    "tt.debug_barrier": "barrier",
    "scf.for": "for",
    "scf.if": "if",
    "scf.while": "while",
    "scf.yield": "yield",
    "scf.condition": "condition",
    "cf.br": "br",
    "cf.cond_br": "cond_br",
    "tt.return": "return",
    "tt.reduce.return": "combine_return",
    "tt.scan.return": "combine_return",
    "tt.map_elementwise.return": "combine_return",
    **{f"tt.{name}": name for name in ("splat", "unsplat", "broadcast", "trans", "reshape")},
    **{f"tt.{name}": name for name in ("join", "split", "load", "store", "atomic_rmw", "scan")},
    **{
        f"tt.{name}": name
        for name in ("atomic_cas", "atomic_poll", "reduce", "gather", "histogram", "dot")
    },
    **{f"tt.{name}": name for name in ("dot_scaled", "assert", "print", "map_elementwise")},
}
"""Every other op the backend knows."""
