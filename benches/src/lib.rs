//! Workloads and harness of the cost table
