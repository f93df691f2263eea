//! What all the programs do.

use crate::workload::Workload;
use std::error::Error;

const USAGE: &str = "usage: ALLOCATOR names | ALLOCATOR run NAME";

/// Does what the arguments say.
///
/// **Errors**: if they say nothing, or name no workload; if the kernel does not tell how much memory
/// is resident.
///
/// **Panics**: if the contents of a block are not what was written to it.
pub fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["names"] => Workload::ALL.iter().for_each(|workload| println!("{}", workload.name)),
        ["run", name] => {
            let found = Workload::ALL.iter().find(|workload| workload.name == name);
            let workload = found.ok_or_else(|| format!("there is no workload {name}"))?;
            println!("{}", workload.measure()?.to_line());
        }
        _ => return Err(USAGE.into()),
    }
    Ok(())
}
