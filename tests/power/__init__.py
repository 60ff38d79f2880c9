"""Power loss and disks that fail, under the SQL store."""
