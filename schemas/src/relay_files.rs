//! The texts of the files that a relay runs on: its login and its configuration. They are written beside the bridge for
//! machines that are set up there, and by the relay itself where it has enrolled.

use crate::{
    id::{MachineId, Workspace},
    signed::PublicKey,
};

/// First and last line of the token in a login file.
pub const TOKEN_LINES: (&str, &str) = ("-----BEGIN NATS USER JWT-----", "------END NATS USER JWT------");
/// First and last line of the seed in a login file.
pub const SEED_LINES: (&str, &str) = ("-----BEGIN USER NKEY SEED-----", "------END USER NKEY SEED------");
/// Commands that a machine runs at the same time, unless its owner says otherwise.
pub const MAX_PARALLEL: u32 = 4;

/// A login file, in the format of the broker's own tools.
pub fn login_file(token: &str, seed: &str) -> String {
    let ((token_begin, token_end), (seed_begin, seed_end)) = (TOKEN_LINES, SEED_LINES);
    format!(
        "{token_begin}\n{token}\n{token_end}\n\n\
         ************************* IMPORTANT *************************\n\
         The seed below proves who you are to the broker. Keep it secret.\n\n\
         {seed_begin}\n{seed}\n{seed_end}\n\n\
         *************************************************************\n"
    )
}

/// A `relay.toml` with the policy that machines begin with.
pub fn relay_toml(ws: &Workspace, id: &MachineId, fleet: &PublicKey) -> String {
    // Printable text in JSON quotes is the same text in TOML.
    let id = serde_json::Value::from(id.as_str());
    format!(
        "# What this machine's relay is and allows. The owner's word: nothing that is pushed overrides it.\n\
         workspace = \"{ws}\"\n\
         machine_id = {id}\n\
         # Signs the document that says who may author what.\n\
         fleet_key = \"{fleet}\"\n\
         # Commands that run at the same time.\n\
         max_parallel = {MAX_PARALLEL}\n\
         # What only an operator's own signature may start here. Add \"command\" to shut the bridge out too.\n\
         require_operator_signature = [\"root\", \"terminal\", \"config\", \"credential\"]\n\
         # Whether relays of the older system, which check no signature, may take this machine's work too.\n\
         allow_legacy = false\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_a_machine_is_toml_for_every_id() {
        let fleet: PublicKey = nkeys::KeyPair::new_user().public_key().parse().unwrap();
        for id in ["web-1", "größe \"1\"", "a\\b", "emoji 🚦"] {
            let text = relay_toml(&Workspace::main(), &MachineId::new(id).unwrap(), &fleet);
            let line = text.lines().find(|line| line.starts_with("machine_id")).unwrap();
            let quoted = line.split_once(" = ").unwrap().1;
            assert_eq!(serde_json::from_str::<String>(quoted).unwrap(), id);
        }
    }
}
