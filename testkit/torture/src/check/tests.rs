mod allowed;
mod bench;
mod broken;
mod seen;
