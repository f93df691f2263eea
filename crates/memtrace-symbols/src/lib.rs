//! Addresses in object files to function, file and line, inlined frames included
