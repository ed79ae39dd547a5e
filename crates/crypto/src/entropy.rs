use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A source of cryptographic randomness, handed in so that a whole node can run from one seed in a simulation.
pub trait Entropy: Send {
    /// Fills `out` with random bytes.
    fn fill(&mut self, out: &mut [u8]);
}

/// The operating system did not deliver randomness.
#[derive(Debug, thiserror::Error)]
#[error("the operating system's random generator failed: {0}")]
pub struct EntropyError(getrandom::Error);

/// ChaCha20 seeded by the operating system: salts cost nanoseconds, not system calls. Reseeded every
/// [`OsEntropy::RESEED_BYTES`].
pub struct OsEntropy {
    rng: ChaCha20Rng,
    left: usize,
}

impl OsEntropy {
    /// Bytes drawn from one seed. A limit on what the leak of one generator state could reveal; the cost of a reseed
    /// (one system call, about 1 µs) vanishes in it.
    pub const RESEED_BYTES: usize = 1 << 26;

    /// A generator seeded by the operating system.
    ///
    /// # Errors
    /// [`EntropyError`] where the system has no randomness to give.
    pub fn new() -> Result<Self, EntropyError> {
        Ok(Self {
            rng: ChaCha20Rng::from_seed(os_seed()?),
            left: Self::RESEED_BYTES,
        })
    }
}

fn os_seed() -> Result<[u8; 32], EntropyError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(EntropyError)?;
    Ok(seed)
}

impl Entropy for OsEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        if self.left < out.len() {
            // A failing reseed keeps the state, which is still unpredictable to outsiders.
            if let Ok(seed) = os_seed() {
                self.rng = ChaCha20Rng::from_seed(seed);
            }
            self.left = Self::RESEED_BYTES;
        }
        self.left = self.left.saturating_sub(out.len());
        self.rng.fill_bytes(out);
    }
}

/// The same bytes for the same seed: simulations and vectors only.
pub struct SeededEntropy(ChaCha20Rng);

impl SeededEntropy {
    /// A generator whose output is a function of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha20Rng::seed_from_u64(seed))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }
}
