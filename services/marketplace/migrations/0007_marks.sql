-- Whether a profile's website is of a domain that its organisation has proven; null: that is to be found out.
ALTER TABLE publisher_profiles ADD COLUMN verified boolean;
