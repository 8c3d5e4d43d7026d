//! Channels go one way: from here to the host. What a host opens towards the relay is refused.

/// Methods of a `russh::client::Handler` that refuse every channel of the host. russh itself would open them, and a reply that
/// is dropped refuses.
macro_rules! no_channels {
    () => {
        $crate::ssh::no_channels::no_channels! {
            server_channel_open_session();
            server_channel_open_direct_tcpip(&str, u32, &str, u32);
            server_channel_open_direct_streamlocal(&str);
            server_channel_open_forwarded_tcpip(&str, u32, &str, u32);
            server_channel_open_forwarded_streamlocal(&str);
            server_channel_open_x11(&str, u32);
            server_channel_open_agent_forward();
        }
    };
    ($($kind:ident($($detail:ty),*);)*) => {
        $(async fn $kind(
            &mut self,
            _channel: russh::Channel<russh::client::Msg>,
            $(_: $detail,)*
            _reply: russh::client::ChannelOpenHandle,
            _session: &mut russh::client::Session,
        ) -> Result<(), Self::Error> {
            tracing::debug!(kind = stringify!($kind), "a host wanted to open a channel, which no host may");
            Ok(())
        })*
    };
}

pub(crate) use no_channels;
