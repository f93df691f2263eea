//! The products on sale: made once when the service starts, read by every request.

use serde::Serialize;

const ADJECTIVES: [&str; 10] = [
    "Plain", "Folding", "Tall", "Nordic", "Rustic", "Compact", "Woven", "Curved", "Light", "Solid",
];
const MATERIALS: [&str; 8] = ["oak", "pine", "steel", "linen", "glass", "rattan", "brass", "cork"];
const KINDS: [(&str, &str); 7] = [
    ("lamp", "lighting"),
    ("table", "furniture"),
    ("chair", "furniture"),
    ("shelf", "storage"),
    ("basket", "storage"),
    ("mirror", "decoration"),
    ("rug", "textiles"),
];

/// One product, as customers see it.
#[derive(Debug, Serialize)]
pub(crate) struct Product {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) category: &'static str,
    pub(crate) description: String,
    pub(crate) price_cents: u64,
    pub(crate) n_in_stock: u64,
}

/// All products, in the order of their ids: the id is the index.
#[derive(Debug)]
pub(crate) struct Catalogue {
    products: Vec<Product>,
}

impl Catalogue {
    /// Makes a catalogue of `n_products`, the same one in every run.
    pub(crate) fn generate(n_products: u32) -> Catalogue {
        Catalogue { products: (0..n_products).map(Product::generate).collect() }
    }

    /// All products in the order of their ids.
    pub(crate) fn products(&self) -> &[Product] {
        &self.products
    }

    /// The product with this id.
    pub(crate) fn product(&self, id: u32) -> Option<&Product> {
        self.products.get(usize::try_from(id).ok()?)
    }

    /// The whole catalogue as one JSON array.
    ///
    /// **Cost.** About 250 bytes a product, allocated and given back with the response.
    ///
    /// **Errors.** None that a plain product can cause; serialisation is fallible by signature.
    pub(crate) fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&self.products)
    }
}

impl Product {
    fn generate(id: u32) -> Product {
        let index = id as usize;
        let adjective = ADJECTIVES[index % ADJECTIVES.len()];
        let material = MATERIALS[(index / 3) % MATERIALS.len()];
        let (kind, category) = KINDS[(index / 5) % KINDS.len()];
        Product {
            id,
            name: format!("{adjective} {material} {kind} No. {id}"),
            category,
            description: format!(
                "A {} {kind} made of {material}, finished by hand, for homes where a {kind} has to \
                 last. Ships within {} days.",
                adjective.to_lowercase(),
                2 + id % 9
            ),
            price_cents: 990 + u64::from(id) * 7919 % 49_000,
            n_in_stock: u64::from(id) * 31 % 240,
        }
    }
}
