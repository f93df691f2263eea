//! Options of a command line, each with a number.

/// Reads options of these names, each given once at most, and returns their numbers in the names' order; or
/// says what is wrong with them.
pub(crate) fn numbers<const N: usize>(
    names: [&str; N],
    mut words: impl Iterator<Item = String>,
) -> Result<[Option<u64>; N], String> {
    let mut numbers = [None; N];
    while let Some(name) = words.next() {
        let mut places = names.iter().zip(&mut numbers);
        let place = places.find_map(|(known, place)| (*known == name).then_some(place));
        let place = place.ok_or_else(|| format!("there is no option {name:?}"))?;
        let value = words.next().ok_or_else(|| format!("{name} needs a number"))?;
        let number = value.parse().map_err(|error| format!("{name} {value:?}: {error}"))?;
        if place.replace(number).is_some() {
            return Err(format!("{name} was given twice"));
        }
    }
    Ok(numbers)
}
