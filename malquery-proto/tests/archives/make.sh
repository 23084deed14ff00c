#!/bin/sh
# Makes the archives that tests/archive.rs reads, with other programs than the one under test: Info-ZIP (zip 3.0),
# 7-Zip (7z) and, for what these refuse to make, Python's zipfile. What is in them is harmless: two words, a list of
# numbers, zeros. The archives are checked in; run this to make them anew, in this folder: sh make.sh
# Salts differ from run to run, so the files of ciphers do too.
set -eu
cd "$(dirname "$0")"
here=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -f ./*.zip
cd "$work"

printf hello > greeting.txt
printf world > second.txt
seq 1 400 > numbers.txt # compressible: 1,492 bytes
: > nothing
head -c 3000000 /dev/zero > zeros

# Info-ZIP knows ZipCrypto alone. -X: no extra fields; -D: no folders; -0: stored.
zip -qX0 -P infected "$here/zipcrypto-stored.zip" greeting.txt
zip -qX9 -P infected "$here/zipcrypto-deflated.zip" numbers.txt
zip -qX -P infected "$here/zipcrypto-several.zip" greeting.txt second.txt numbers.txt nothing
# -fz forces Zip64 records; a pipe is written with data descriptors (and, from a pipe, Zip64).
zip -qX -fz -P infected "$here/zipcrypto-zip64.zip" greeting.txt numbers.txt
zip -qX -P infected - greeting.txt numbers.txt | cat > "$here/zipcrypto-descriptors.zip"
# not encrypted, from a pipe into a pipe: Zip64 and data descriptors
cat numbers.txt | zip -qX - - | cat > "$here/plain-zip64-descriptors.zip"
zip -qX -P other "$here/wrong-password.zip" greeting.txt numbers.txt

# 7-Zip: both ciphers.
7z a -bd -bso0 -tzip -mem=AES256 -mx0 -pinfected "$here/aes256-stored.zip" greeting.txt
7z a -bd -bso0 -tzip -mem=AES256 -mx9 -mm=Deflate -pinfected "$here/aes256-deflated.zip" numbers.txt
7z a -bd -bso0 -tzip -mem=AES256 -mm=Deflate -pinfected "$here/aes256-several.zip" greeting.txt second.txt numbers.txt nothing
7z a -bd -bso0 -tzip -mem=AES128 -mm=Deflate -pinfected "$here/aes128.zip" greeting.txt
7z a -bd -bso0 -tzip -mem=ZipCrypto -mm=Deflate -pinfected "$here/zipcrypto-7z.zip" greeting.txt numbers.txt
7z a -bd -bso0 -tzip -mem=AES256 -mm=Deflate -pother "$here/wrong-password-aes.zip" greeting.txt
# a method that is not supported
7z a -bd -bso0 -tzip -mem=AES256 -mm=LZMA -pinfected "$here/lzma.zip" numbers.txt

# Empty: an archive whose only entry was removed.
cp "$here/zipcrypto-stored.zip" empty.zip
7z d -bd -bso0 -tzip empty.zip greeting.txt
mv empty.zip "$here/empty.zip"

# A bomb, 3 MB of zeros in 3 KB.
zip -qX9 -P infected "$here/bomb.zip" zeros

# The same before a sample.
zip -qX9 -P infected "$here/bomb-and-sample.zip" zeros greeting.txt

# Entries that are named after samples, the first after one that it is not.
cp second.txt 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824.bin
mkdir folder
seq 1 400 > folder/079C7F8C11C1F937511EF9B17FDCC14345730C69D29D3D269175EB545CE02F45
zip -qXD -P infected "$here/named.zip" 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824.bin \
    folder/079C7F8C11C1F937511EF9B17FDCC14345730C69D29D3D269175EB545CE02F45
# The same again with the sample that was missing: its name is no more than what it says.
zip -qXD -P infected "$here/named-otherwise.zip" 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824.bin greeting.txt

# Hostile names, encrypted: the names are exchanged for others of the same length, here and in the directory.
for name in AAAAAAAAAAAAAA BBBBBBBBBBB CCCCCCCCCC DDDDDDDDDD EEEEEEEE FFF GGGGG; do printf '%s' "$name" > "$name"; done
zip -qX0 -P infected names.zip AAAAAAAAAAAAAA BBBBBBBBBBB CCCCCCCCCC DDDDDDDDDD EEEEEEEE FFF GGGGG
python3 - "$here" <<'PYTHON'
import struct, sys, warnings, zipfile
warnings.simplefilter("ignore")
here = sys.argv[1]

data = open("names.zip", "rb").read()
for old, new in [
    (b"AAAAAAAAAAAAAA", b"../../escapes!"),
    (b"BBBBBBBBBBB", b"/etc/hosts\x00"),
    (b"CCCCCCCCCC", b"C:\\x\\y.exe"),
    (b"DDDDDDDDDD", b"\x1b[31m\xe2\x80\xae\x07!"),
    (b"EEEEEEEE", b"\xff\xfe\x80x.bin"),
    (b"FFF", b"NUL"),
    (b"GGGGG", b"a/b/c"),
]:
    assert data.count(old) == 2 and len(old) == len(new), old  # its bytes are encrypted
    data = data.replace(old, new)
open(f"{here}/names.zip", "wb").write(data)

# Kinds of entries, and a name that is there twice. Not encrypted: Python cannot.
def entry(name, mode=0o100644):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info

with zipfile.ZipFile(f"{here}/kinds.zip", "w") as archive:
    archive.writestr(entry("folder/", 0o040755), b"")
    archive.writestr(entry("link", 0o120777), b"/etc/passwd")
    archive.writestr(entry("device", 0o020666), b"device")
    archive.writestr(entry("program", 0o104755), b"program")
    archive.writestr(entry("twice"), b"the first")
    archive.writestr(entry("twice"), b"the second")

# Two entries of the directory that share the bytes of one.
with zipfile.ZipFile("one.zip", "w") as archive:
    archive.writestr(entry("a"), b"shared")
data = open("one.zip", "rb").read()
start = data.index(b"PK\x01\x02")
end = data.index(b"PK\x05\x06")
header = data[start:end]
assert header.count(b"a") == 1
directory = header + header.replace(b"a", b"b")
tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, len(directory), start, 0)
open(f"{here}/overlap.zip", "wb").write(data[:start] + directory + tail)

# An entry that inflates to more than it declares.
with zipfile.ZipFile("liar.zip", "w") as archive:
    archive.writestr(entry("liar"), bytes(100_000), zipfile.ZIP_DEFLATED)
data = bytearray(open("liar.zip", "rb").read())
struct.pack_into("<L", data, 22, 10)
struct.pack_into("<L", data, data.index(b"PK\x01\x02") + 24, 10)
open(f"{here}/liar.zip", "wb").write(data)

# A directory that says it has 60,000 entries, and one that says it has 2^60 (Zip64).
with zipfile.ZipFile("one.zip", "w") as archive:
    archive.writestr(entry("a"), b"a")
data = open("one.zip", "rb").read()
start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
body = data[:end]
open(f"{here}/claims-60000.zip", "wb").write(
    body + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 60_000, 60_000, end - start, start, 0))
record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1 << 60, 1 << 60, 1 << 62, start)
locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
open(f"{here}/claims-zip64.zip", "wb").write(
    body + record + locator + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xffff, 0xffff, 0xffffffff, 0xffffffff, 0))
PYTHON
