//! A pooled heap of fixed-size blocks in pools in arenas, with exact accounting; usable alone
