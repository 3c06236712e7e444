//! vgpo
