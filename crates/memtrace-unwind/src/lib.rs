//! The calling stack as return addresses, without allocating and without frame pointers
