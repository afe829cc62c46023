"""The version of the generator."""

#: Other pixels or other words for the same world need another version: results on two
#: versions cannot be compared.
VERSION = '1.0'
