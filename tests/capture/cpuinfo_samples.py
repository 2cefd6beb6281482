"""What /proc/cpuinfo looks like on kinds of machines, written by hand after the kernel's own formats."""

_V1 = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat clflush mmx fxsr sse sse2 syscall nx lm"
_V2 = f"{_V1} pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm"
_V3 = f"{_V2} fma movbe xsave avx f16c abm bmi1 avx2 bmi2"
_V4 = f"{_V3} avx512f avx512dq avx512cd avx512bw avx512vl"


def x86(vendor: str, family: int, model: int, name: str, stepping: str, microcode: str, flags: str) -> str:
    """Return one processor of an x86 machine, as %d; the caller fills in its numbers."""
    return f"""processor	: %(cpu)d
vendor_id	: {vendor}
cpu family	: {family}
model		: {model}
model name	: {name}
stepping	: {stepping}
microcode	: {microcode}
cpu MHz		: 2250.000
cache size	: 512 KB
physical id	: %(socket)d
siblings	: 2
core id		: %(core)d
cpu cores	: 2
fpu		: yes
flags		: {flags}
bugs		: spectre_v1 spectre_v2
bogomips	: 4499.88
power management: ts ttp tm

"""


def arm(implementer: str, part: str, features: str, variant: str = "0x3", revision: int = 1) -> str:
    """Return one processor of an Arm machine, as %d."""
    return f"""processor	: %(cpu)d
BogoMIPS	: 243.75
Features	: {features}
CPU implementer	: {implementer}
CPU architecture: 8
CPU variant	: {variant}
CPU part	: {part}
CPU revision	: {revision}

"""


def machine(*processors: str) -> str:
    """Return the file for processors of one socket, one core each."""
    return "".join(text % {"cpu": i, "socket": 0, "core": i} for i, text in enumerate(processors))


AMD = x86("AuthenticAMD", 23, 49, "AMD EPYC 7702 64-Core Processor", "0", "0x830107c", f"{_V3} sse4a svm rdpru")
INTEL = x86("GenuineIntel", 6, 143, "Intel(R) Xeon(R) Platinum 8480+", "8", "0x2b000603", f"{_V4} amx_tile amx_bf16")
OLD = x86("GenuineIntel", 6, 44, "Intel(R) Xeon(R) CPU X5650 @ 2.67GHz", "2", "0x1f", _V2)
# What qemu shows without "-cpu host", and a sandbox kernel that tells little.
QEMU = x86("AuthenticAMD", 15, 107, "QEMU Virtual CPU version 2.5+", "1", "0x1000065", f"{_V1} pni cx16 hypervisor")
SANDBOX = x86("GenuineIntel", 6, 85, "unknown", "unknown", "", f"{_V3} hypervisor")

_N1 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs"
_V1_ARM = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 sm3 "
    "sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs paca pacg dcpodp svei8mm svebf16 i8mm bf16 dgh rng"
)
_V2_ARM = f"{_V1_ARM} sve2 sveaes svepmull svebitperm svesha3 flagm2 frint bti sb"

ALTRA = arm("0x41", "0xd0c", _N1)
GRAVITON3 = arm("0x41", "0xd40", _V1_ARM, variant="0x1")
GRACE = arm("0x41", "0xd4f", _V2_ARM, variant="0x0", revision=0)
APPLE = arm("0x61", "0x022", _N1, variant="0x1")
LITTLE = arm("0x41", "0xd05", "fp asimd evtstrm crc32 atomics asimdrdm cpuid lrcpc dcpop asimddp", variant="0x2")
BIG = arm("0x41", "0xd0b", _N1, variant="0x4")
RASPBERRY = arm("0x41", "0xd08", "fp asimd evtstrm crc32 cpuid", variant="0x0", revision=3)

POWER = """processor	: 0
cpu		: POWER9, altivec supported
clock		: 3800.000000MHz
revision	: 2.3 (pvr 004e 1203)

timebase	: 512000000
platform	: PowerNV
model		: 9006-22P
"""
