"""What a release is made of besides the wheel; nothing here is part of the product."""
