//! Signing without blinding the context anew at every signature.
//!
//! The library's own call blinds its context after each signature with the secret key as the seed, which costs more than
//! the signature. Here the context of each thread is blinded in the same way before its first signature and then after
//! every [`BLIND_EVERY`]. Blinding is a defence in depth against side channels of a constant-time routine: it changes no
//! byte of a signature.
//!
//! The only unsafe code of Weir: one call of libsecp256k1, which the library's safe interface cannot make without blinding.

use std::cell::Cell;
use std::ptr;

use secp256k1::Keypair;
use secp256k1::ffi::{self, CPtr as _};

/// Signatures of a thread between two blindings of its context.
const BLIND_EVERY: u32 = 256;

thread_local! {
    static SIGNED: Cell<u32> = const { Cell::new(0) };
}

/// BIP-340 signature of a 32-byte digest, with auxiliary data of zeros.
pub(super) fn sign(digest: &[u8; 32], keypair: &Keypair) -> [u8; 64] {
    SIGNED.with(|signed| {
        if signed.get() % BLIND_EVERY == 0 {
            secp256k1::rerandomize_global_context(&keypair.to_secret_bytes());
        }
        signed.set(signed.get().wrapping_add(1));
    });
    let mut signature = [0; 64];
    let extra = ffi::SchnorrSigExtraParams::new(None, ptr::null());
    let done = secp256k1::with_raw_global_context(
        #[expect(
            unsafe_code,
            reason = "the safe call blinds the context at every signature: more than twice the cost"
        )]
        // SAFETY: the context is this thread's, initialised, and borrowed while the closure runs; `signature` has the 64
        // bytes that are written, `digest` the length that is passed, `keypair` and `extra` outlive the call; a null nonce
        // function and null auxiliary data are allowed (`secp256k1_schnorrsig.h`).
        |context| unsafe {
            ffi::secp256k1_schnorrsig_sign_custom(
                context.as_ptr(),
                signature.as_mut_ptr(),
                digest.as_ptr(),
                digest.len(),
                keypair.as_c_ptr(),
                &raw const extra,
            )
        },
        None,
    );
    assert_eq!(done, 1, "signing fails for no key pair that could be made");
    signature
}
